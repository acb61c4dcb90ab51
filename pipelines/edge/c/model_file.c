#include "model_file.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* Checksum: FIPS 180-4 */

static const char MAGIC[] = "SPEECHRNN-SHA256";
enum { MAGIC_BYTES = sizeof MAGIC - 1, DIGEST_BYTES = 32 };

static uint32_t rotated(uint32_t x, int bits) { return x >> bits | x << (32 - bits); }

static const uint32_t ROUNDS[64] = { /* the cube roots of primes, after the point */
    0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4,
    0xab1c5ed5, 0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe,
    0x9bdc06a7, 0xc19bf174, 0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f,
    0x4a7484aa, 0x5cb0a9dc, 0x76f988da, 0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7,
    0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967, 0x27b70a85, 0x2e1b2138, 0x4d2c6dfc,
    0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85, 0xa2bfe8a1, 0xa81a664b,
    0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070, 0x19a4c116,
    0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
    0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7,
    0xc67178f2};
static const uint32_t START[8] = { /* the square roots */
    0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a,
    0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};

static void sha256_block(uint32_t state[8], const uint8_t block[64]) {
  uint32_t w[64];
  for (int t = 0; t < 16; t++)
    w[t] = (uint32_t)block[4 * t] << 24 | (uint32_t)block[4 * t + 1] << 16 |
           (uint32_t)block[4 * t + 2] << 8 | block[4 * t + 3];
  for (int t = 16; t < 64; t++) {
    uint32_t a = w[t - 15], b = w[t - 2];
    w[t] = w[t - 16] + (rotated(a, 7) ^ rotated(a, 18) ^ a >> 3) + w[t - 7] +
           (rotated(b, 17) ^ rotated(b, 19) ^ b >> 10);
  }
  uint32_t s[8];
  memcpy(s, state, sizeof s);
  for (int t = 0; t < 64; t++) {
    uint32_t a = s[0], e = s[4];
    uint32_t t1 = s[7] + (rotated(e, 6) ^ rotated(e, 11) ^ rotated(e, 25)) +
                  ((e & s[5]) ^ (~e & s[6])) + ROUNDS[t] + w[t];
    uint32_t t2 = (rotated(a, 2) ^ rotated(a, 13) ^ rotated(a, 22)) +
                  ((a & s[1]) ^ (a & s[2]) ^ (s[1] & s[2]));
    memmove(s + 1, s, 7 * sizeof *s);
    s[4] += t1;
    s[0] = t1 + t2;
  }
  for (int i = 0; i < 8; i++) state[i] += s[i];
}

void sha256(const uint8_t *bytes, size_t size, uint8_t digest[32]) {
  uint32_t state[8];
  memcpy(state, START, sizeof state);
  size_t whole = size - size % 64;
  for (size_t i = 0; i < whole; i += 64) sha256_block(state, bytes + i);
  /* What is left, a one bit, zeros, and the number of bits in the last eight bytes. */
  uint8_t last[128] = {0};
  memcpy(last, bytes + whole, size - whole);
  last[size - whole] = 0x80;
  size_t padded = size - whole < 56 ? 64 : 128;
  uint64_t bits = (uint64_t)size * 8;
  for (int i = 0; i < 8; i++) last[padded - 8 + (size_t)i] = (uint8_t)(bits >> (56 - 8 * i));
  for (size_t i = 0; i < padded; i += 64) sha256_block(state, last + i);
  for (int i = 0; i < 32; i++) digest[i] = (uint8_t)(state[i / 4] >> (24 - 8 * (i % 4)));
}

size_t checked_flatbuffer(const uint8_t *file, size_t size, const char **reason) {
  if (size < 8 + MAGIC_BYTES + DIGEST_BYTES || memcmp(file + 4, "TFL3", 4) != 0) {
    *reason = "it is not a TFLite model";
    return 0;
  }
  size_t flatbuffer = size - MAGIC_BYTES - DIGEST_BYTES;
  if (memcmp(file + flatbuffer, MAGIC, MAGIC_BYTES) != 0) {
    *reason = "it ends without speechrnn's checksum: cut short, or not of `speechrnn export`";
    return 0;
  }
  uint8_t digest[DIGEST_BYTES];
  sha256(file, size - DIGEST_BYTES, digest);
  if (memcmp(digest, file + size - DIGEST_BYTES, DIGEST_BYTES) != 0) {
    *reason = "it is damaged: its checksum differs";
    return 0;
  }
  return flatbuffer;
}

/* Description: as much of JSON (RFC 8259) as finds a value by its keys. A reader that has failed
 * stands at its end, where nothing is found any more. */

typedef struct {
  const char *at, *end;
} Reader;

enum { MOST_NESTED = 64 };

static bool failed(Reader *r) {
  r->at = r->end;
  return false;
}

static void blanks(Reader *r) {
  while (r->at < r->end && *r->at && strchr(" \t\r\n", *r->at)) r->at++;
}

/* The next character, if it is `c`. */
static bool take(Reader *r, char c) {
  blanks(r);
  if (r->at == r->end || *r->at != c) return false;
  r->at++;
  return true;
}

static bool hex4(Reader *r, uint32_t *out) {
  *out = 0;
  for (int i = 0; i < 4; i++, r->at++) {
    static const char digits[] = "0123456789abcdef";
    char c = r->at < r->end ? *r->at : '\0';
    const char *digit = c ? strchr(digits, c >= 'A' && c <= 'F' ? c + 32 : c) : NULL;
    if (!digit) return failed(r);
    *out = *out << 4 | (uint32_t)(digit - digits);
  }
  return true;
}

/* Behind "\u": one code point, of two escapes where it lies above U+FFFF. */
static bool code_point(Reader *r, uint32_t *out) {
  if (!hex4(r, out)) return false;
  if (*out < 0xD800 || *out > 0xDFFF) return true;
  uint32_t low;
  if (*out > 0xDBFF || r->end - r->at < 2 || memcmp(r->at, "\\u", 2) != 0) return failed(r);
  r->at += 2;
  if (!hex4(r, &low) || low < 0xDC00 || low > 0xDFFF) return failed(r);
  *out = 0x10000 + ((*out - 0xD800) << 10 | (low - 0xDC00));
  return true;
}

static size_t put_utf8(uint32_t code, char *out) {
  if (code < 0x80) return out[0] = (char)code, 1;
  size_t more = code < 0x800 ? 1 : code < 0x10000 ? 2 : 3;
  static const uint8_t lead[] = {0, 0xC0, 0xE0, 0xF0};
  out[0] = (char)(lead[more] | code >> 6 * more);
  for (size_t i = 1; i <= more; i++) out[i] = (char)(0x80 | (code >> 6 * (more - i) & 0x3F));
  return more + 1;
}

/* A string -> its text, to be freed; NULL where there is none. Escapes only ever get shorter. */
static char *string(Reader *r) {
  if (!take(r, '"')) return NULL;
  const char *quote = r->at;
  while (quote < r->end && *quote != '"') quote += *quote == '\\' && r->end - quote > 1 ? 2 : 1;
  char *text = malloc((size_t)(quote - r->at) + 1);
  size_t length = 0;
  bool good = text && quote < r->end;
  while (good && r->at < quote) {
    char c = *r->at++;
    if (c != '\\') {
      text[length++] = c;
      continue;
    }
    static const char names[] = "\"\\/bfnrt", values[] = "\"\\/\b\f\n\r\t";
    uint32_t code;
    const char *name = *r->at ? strchr(names, *r->at) : NULL;
    if (name) {
      text[length++] = values[name - names];
      r->at++;
    } else if ((good = *r->at++ == 'u' && code_point(r, &code) && code != 0)) {
      length += put_utf8(code, text + length);
    }
  }
  if (!good || r->at != quote) {
    free(text);
    failed(r);
    return NULL;
  }
  r->at++;
  text[length] = '\0';
  return text;
}

static bool skip(Reader *r, int depth) {
  if (depth > MOST_NESTED) return failed(r);
  bool object = take(r, '{');
  if (object || take(r, '[')) {
    char close = object ? '}' : ']';
    if (take(r, close)) return true;
    do {
      if (object) {
        char *key = string(r);
        free(key);
        if (!key || !take(r, ':')) return failed(r);
      }
      if (!skip(r, depth + 1)) return false;
    } while (take(r, ','));
    return take(r, close) || failed(r);
  }
  if (r->at < r->end && *r->at == '"') {
    char *text = string(r);
    free(text);
    return text != NULL;
  }
  const char *start = r->at; /* a number, true, false or null; NaN and Infinity as Python has them */
  while (r->at < r->end && *r->at && !strchr(",:]}\" \t\r\n", *r->at)) r->at++;
  return r->at > start || failed(r);
}

/* From the beginning of an object to that of a member's value. */
static bool member(Reader *r, const char *name) {
  if (!take(r, '{')) return failed(r);
  do {
    char *key = string(r);
    bool found = key && strcmp(key, name) == 0;
    free(key);
    if (!key || !take(r, ':')) return failed(r);
    if (found) return true;
    if (!skip(r, 0)) return false;
  } while (take(r, ','));
  return failed(r);
}

static bool number(Reader object, const char *name, double *out) {
  if (!member(&object, name)) return false;
  blanks(&object);
  char text[32] = {0};
  size_t length = 0;
  while (object.at < object.end && length < sizeof text - 1 && *object.at &&
         strchr("+-.0123456789eE", *object.at))
    text[length++] = *object.at++;
  char *end;
  *out = strtod(text, &end);
  return end > text && *end == '\0' && isfinite(*out);
}

static bool strings(Reader array, Description *out) {
  if (!take(&array, '[')) return false;
  do {
    char *symbol = string(&array);
    char **grown = symbol ? realloc(out->symbols, (out->count + 1) * sizeof *grown) : NULL;
    if (!grown) {
      free(symbol);
      return false;
    }
    out->symbols = grown;
    out->symbols[out->count++] = symbol;
  } while (take(&array, ','));
  return take(&array, ']');
}

bool description_parse(const char *json, size_t size, Description *out) {
  *out = (Description){0};
  Reader file = {json, json + size}, spec = file;
  double format, window_ms, hop_ms;
  if (!number(file, "format", &format) || format != 1 || !member(&spec, "spec")) return false;
  Reader features = spec, model = spec, alphabet = spec;
  if (!member(&features, "features") || !number(features, "sample_rate", &out->sample_rate) ||
      !number(features, "window_ms", &window_ms) || !number(features, "hop_ms", &hop_ms))
    return false;
  if (!member(&model, "model") || !number(model, "time_stride", &out->time_stride)) return false;
  if (!member(&alphabet, "alphabet") || !member(&alphabet, "symbols") || !strings(alphabet, out))
    return false;
  out->window = rint(window_ms * out->sample_rate / 1000);
  out->hop = rint(hop_ms * out->sample_rate / 1000);
  return out->sample_rate >= 1 && out->sample_rate <= 1e6 && out->window >= 1 &&
         out->window <= 1e6 && out->hop >= 1 && out->hop <= 1e6 && out->time_stride >= 1 &&
         out->time_stride <= 1e3;
}

void description_free(Description *description) {
  for (size_t i = 0; i < description->count; i++) free(description->symbols[i]);
  free(description->symbols);
  *description = (Description){0};
}
