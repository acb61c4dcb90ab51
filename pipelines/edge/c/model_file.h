/* A device file without a runtime: its checksum, and what its description says. docs/device.md has
 * the format. Nothing here trusts a length that it has read. */
#ifndef SPEECHRNN_EDGE_MODEL_FILE_H
#define SPEECHRNN_EDGE_MODEL_FILE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct {
  double sample_rate; /* Hz */
  double window;      /* samples */
  double hop;         /* samples */
  double time_stride; /* feature frames per output frame */
  size_t count;       /* of symbols; labels are one more, 0 is the blank */
  char **symbols;     /* UTF-8; symbols[k - 1] is label k */
} Description;

/* The SHA-256 of `size` bytes. */
void sha256(const uint8_t *bytes, size_t size, uint8_t digest[32]);

/* Bytes of the flatbuffer at the beginning of a device file; 0 and a reason where the file is
 * foreign, cut short or damaged. */
size_t checked_flatbuffer(const uint8_t *file, size_t size, const char **reason);

/* The JSON of the metadata buffer "speechrnn" -> whether it was understood. Call
 * description_free in any case. */
bool description_parse(const char *json, size_t size, Description *out);
void description_free(Description *description);

#endif
