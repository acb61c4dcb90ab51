/* A recording to text on LiteRT's C interface:
 *
 *     transcribe MODEL.tflite RECORDING.wav [--tokens]
 *
 * prints the text, or with --tokens each symbol behind the number of the output frame in which it
 * begins. The recording is 16-bit PCM of one channel at the model's rate. Exit codes are those of
 * the command `speechrnn`: 0 done, 1 the machine refused, 2 usage, 3 bad recording, 4 bad model.
 */
#include <limits.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "litert.h"
#include "model_file.h"

enum { REFUSED = 1, USAGE = 2, BAD_RECORDING = 3, BAD_MODEL = 4 };
enum { MOST_BYTES = 256 << 20 }; /* of either file: over two hours at 16 kHz */
enum { TOKENS, FRAMES, LOG_PROBS, OUTPUTS };
static const char *const OUTPUT_NAMES[OUTPUTS] = {"tokens", "frames", "log_probs"};

static _Noreturn void stop(int code, const char *format, ...) {
  va_list arguments;
  va_start(arguments, format);
  fputs("error: ", stderr);
  vfprintf(stderr, format, arguments);
  fputc('\n', stderr);
  va_end(arguments);
  exit(code);
}

/* Memory that LiteRT takes for a tensor: aligned, of at least one byte, zeros. */
static void *tensor_memory(size_t bytes) {
  size_t unit = LITERT_HOST_MEMORY_BUFFER_ALIGNMENT;
  size_t size = (bytes / unit + 1) * unit;
  void *memory = aligned_alloc(unit, size);
  if (!memory) stop(REFUSED, "no memory for %zu bytes", size);
  return memset(memory, 0, size);
}

static uint8_t *read_file(const char *path, size_t *size, int code) {
  FILE *file = fopen(path, "rb");
  if (!file) stop(code, "%s cannot be opened; correct the path", path);
  size_t room = 1 << 20;
  uint8_t *bytes = NULL;
  *size = 0;
  do {
    uint8_t *grown = realloc(bytes, room *= 2);
    if (!grown) stop(REFUSED, "no memory for %s", path);
    bytes = grown;
    *size += fread(bytes + *size, 1, room - *size, file);
  } while (*size == room && room < MOST_BYTES);
  if (ferror(file)) stop(code, "%s cannot be read", path);
  if (*size == MOST_BYTES) stop(code, "%s has %d MB or more; cut it", path, MOST_BYTES >> 20);
  fclose(file);
  return bytes;
}

/* The recording */

static uint32_t little_endian(const uint8_t *bytes, int count) {
  uint32_t value = 0;
  for (int i = 0; i < count; i++) value |= (uint32_t)bytes[i] << 8 * i;
  return value;
}

/* A WAV's samples in [-1, 1), as a tensor. */
static float *read_wav(const char *path, double sample_rate, size_t *samples) {
  size_t size, at = 12;
  uint8_t *file = read_file(path, &size, BAD_RECORDING);
  if (size < 12 || memcmp(file, "RIFF", 4) != 0 || memcmp(file + 8, "WAVE", 4) != 0)
    stop(BAD_RECORDING, "%s is not a WAV file; convert it", path);
  const uint8_t *format = NULL, *data = NULL;
  while (!data && size - at >= 8) {
    uint32_t length = little_endian(file + at + 4, 4);
    const uint8_t *chunk = file + at;
    at += 8;
    bool is_data = memcmp(chunk, "data", 4) == 0;
    /* What sox and ffmpeg write when they cannot seek back to fill it in. */
    if (is_data && (length == 0 || length >= 0x7FFFF000)) length = (uint32_t)(size - at);
    if (length > size - at)
      stop(BAD_RECORDING, "%s is cut short (%zu of at least %zu bytes); copy it again", path, size,
           at + length);
    if (is_data) {
      data = file + at;
      *samples = length / 2;
    } else if (memcmp(chunk, "fmt ", 4) == 0 && length >= 16) {
      format = file + at;
      bool extensible = little_endian(format, 2) == 0xFFFE && length >= 26;
      uint32_t coding = little_endian(format + (extensible ? 24 : 0), 2);
      uint32_t channels = little_endian(format + 2, 2), rate = little_endian(format + 4, 4);
      uint32_t bits = little_endian(format + 14, 2);
      if (coding != 1 || bits != 16 || channels != 1 || rate != sample_rate)
        stop(BAD_RECORDING,
             "%s has %u channels of %u bits (format %u) at %u Hz; the model takes 1 of 16 bits "
             "(format 1, PCM) at %.0f Hz. Convert it: sox IN -c 1 -b 16 -r %.0f OUT.wav",
             path, channels, bits, coding, rate, sample_rate, sample_rate);
    }
    at += length;
    if (length % 2 && at < size) at++; /* chunks are padded to even sizes */
  }
  if (!format || !data) stop(BAD_RECORDING, "%s has no samples; record it again", path);
  float *waveform = tensor_memory(*samples * sizeof *waveform);
  for (size_t i = 0; i < *samples; i++) {
    int sample = (int)little_endian(data + 2 * i, 2);
    waveform[i] = (float)(sample < 32768 ? sample : sample - 65536) / 32768.0f;
  }
  free(file);
  return waveform;
}

/* The model */

typedef struct {
  const char *path;
  uint8_t *file;
  LiteRtEnvironment environment;
  LiteRtModel model;
  LiteRtCompiledModel compiled;
  size_t signature;
  int output[OUTPUTS]; /* TOKENS and so on, by the runtime's number */
  Description description;
} Model;

static void check(const Model *model, LiteRtStatus status, const char *what) {
  if (status != kLiteRtStatusOk)
    stop(BAD_MODEL, "%s: LiteRT cannot %s (status %d)", model->path, what, status);
}

/* Which signature is `transcribe`, and in which order it gives its outputs. */
static void find_signature(Model *model) {
  size_t signatures, inputs, outputs;
  LiteRtSignature signature = NULL;
  const char *name = "";
  check(model, LiteRtGetNumModelSignatures(model->model, &signatures), "count the signatures");
  for (size_t i = 0; i < signatures && strcmp(name, "transcribe") != 0; i++) {
    check(model, LiteRtGetModelSignature(model->model, i, &signature), "find a signature");
    check(model, LiteRtGetSignatureKey(signature, &name), "name a signature");
    model->signature = i;
  }
  if (strcmp(name, "transcribe") != 0)
    stop(BAD_MODEL, "%s has no signature transcribe; export it again", model->path);
  check(model, LiteRtGetNumSignatureInputs(signature, &inputs), "count the inputs");
  check(model, LiteRtGetNumSignatureOutputs(signature, &outputs), "count the outputs");
  bool found[OUTPUTS] = {false};
  for (size_t i = 0; i < outputs && outputs == OUTPUTS; i++) {
    check(model, LiteRtGetSignatureOutputName(signature, i, &name), "name an output");
    for (int k = 0; k < OUTPUTS; k++)
      if (strcmp(name, OUTPUT_NAMES[k]) == 0) {
        model->output[i] = k;
        found[k] = true;
      }
  }
  if (inputs != 1 || !found[TOKENS] || !found[FRAMES] || !found[LOG_PROBS])
    stop(BAD_MODEL, "%s: transcribe has other inputs or outputs; export it again", model->path);
}

static Model open_model(const char *path) {
  Model model = {.path = path};
  size_t size, json_size;
  const char *reason;
  const void *json;
  uint8_t *file = read_file(path, &size, BAD_MODEL);
  size_t flatbuffer = checked_flatbuffer(file, size, &reason);
  if (!flatbuffer) stop(BAD_MODEL, "%s: %s", path, reason);
  model.file = tensor_memory(flatbuffer); /* weights are read in place */
  memcpy(model.file, file, flatbuffer);
  free(file);

  const LiteRtEnvOption options[] = {
      {kLiteRtEnvOptionTagAutoRegisterAccelerators,
       {.type = kLiteRtAnyTypeInt, .int_value = kLiteRtHwAcceleratorCpu}},
      {kLiteRtEnvOptionTagMinLoggerSeverity,
       {.type = kLiteRtAnyTypeInt, .int_value = kLiteRtLogSeverityError}},
  };
  check(&model, LiteRtCreateEnvironment(2, options, &model.environment), "start");
  check(&model,
        LiteRtCreateModelFromBuffer(model.environment, model.file, flatbuffer, &model.model),
        "read it");
  if (LiteRtGetModelMetadata(model.model, "speechrnn", &json, &json_size) != kLiteRtStatusOk)
    stop(BAD_MODEL, "%s has no metadata speechrnn; use `speechrnn export`", path);
  if (!description_parse(json, json_size, &model.description))
    stop(BAD_MODEL, "%s: its description is damaged or of another format; export it again", path);
  find_signature(&model);

  LiteRtOptions compilation;
  check(&model, LiteRtCreateOptions(&compilation), "make options");
  check(&model, LiteRtSetOptionsHardwareAccelerators(compilation, kLiteRtHwAcceleratorCpu),
        "choose the CPU");
  check(&model,
        LiteRtCreateCompiledModel(model.environment, model.model, compilation, &model.compiled),
        "prepare it");
  LiteRtDestroyOptions(compilation);
  return model;
}

static void close_model(Model *model) {
  LiteRtDestroyCompiledModel(model->compiled);
  LiteRtDestroyModel(model->model);
  LiteRtDestroyEnvironment(model->environment);
  description_free(&model->description);
  free(model->file);
}

/* What was heard: labels and the output frames in which they begin. */
typedef struct {
  size_t count;
  int32_t *tokens, *frames;
} Heard;

static LiteRtTensorBuffer tensor(const Model *model, int type, size_t rows, size_t columns,
                                 void *memory) {
  LiteRtRankedTensorType shape = {.element_type = type};
  shape.layout.rank = columns ? 2 : 1;
  shape.layout.dimensions[0] = (int32_t)rows;
  shape.layout.dimensions[1] = (int32_t)columns;
  LiteRtTensorBuffer buffer;
  size_t bytes = rows * (columns ? columns : 1) * 4; /* float32 and int32 alike */
  check(model, LiteRtCreateTensorBufferFromHostMemory(&shape, memory, bytes, NULL, &buffer),
        "take a tensor");
  return buffer;
}

static void output_shapes(const Model *model, bool update, LiteRtLayout layouts[OUTPUTS]) {
  LiteRtLayout given[OUTPUTS] = {0};
  check(model,
        LiteRtGetCompiledModelOutputTensorLayouts(model->compiled, model->signature, OUTPUTS,
                                                  given, update),
        "tell the outputs' shapes");
  for (int i = 0; i < OUTPUTS; i++) layouts[model->output[i]] = given[i];
}

/* The runtime writes as much as it computes, whatever the size of the memory it was given: the
 * description, from which that is taken, has to be this model's. */
static void check_labels(const Model *model, size_t labels) {
  LiteRtLayout shapes[OUTPUTS];
  output_shapes(model, true, shapes);
  if (shapes[TOKENS].rank != 1 || shapes[FRAMES].rank != 1 || shapes[LOG_PROBS].rank != 2 ||
      shapes[LOG_PROBS].dimensions[1] != (int32_t)labels)
    stop(BAD_MODEL, "%s: its description is another model's; export it again", model->path);
}

static Heard transcribe(const Model *model, float *waveform, size_t samples) {
  const Description *spec = &model->description;
  Heard heard = {0};
  if ((double)samples < spec->window) return heard;
  /* How much was heard is known afterwards; a token an output frame is the most. */
  double features = 1 + floor(((double)samples - spec->window) / spec->hop);
  size_t frames = (size_t)ceil(features / spec->time_stride), labels = spec->count + 1;
  void *memory[OUTPUTS] = {tensor_memory(frames * 4), tensor_memory(frames * 4),
                           tensor_memory(frames * labels * sizeof(float))};
  int dimensions[] = {(int)samples};
  check(model,
        LiteRtCompiledModelResizeInputTensor(model->compiled, model->signature, 0, dimensions, 1),
        "take a recording of this length");
  check_labels(model, labels);
  LiteRtTensorBuffer input =
      tensor(model, kLiteRtElementTypeFloat32, samples, 0, waveform), outputs[OUTPUTS];
  for (int i = 0; i < OUTPUTS; i++) {
    int k = model->output[i];
    outputs[i] = tensor(model, k == LOG_PROBS ? kLiteRtElementTypeFloat32 : kLiteRtElementTypeInt32,
                        frames, k == LOG_PROBS ? labels : 0, memory[k]);
  }
  check(model,
        LiteRtRunCompiledModel(model->compiled, model->signature, 1, &input, OUTPUTS, outputs),
        "run it");
  LiteRtLayout shapes[OUTPUTS];
  output_shapes(model, false, shapes);
  int32_t found = shapes[TOKENS].dimensions[0];
  if (shapes[LOG_PROBS].dimensions[0] != (int32_t)frames || found < 0 ||
      (size_t)found > frames || shapes[FRAMES].dimensions[0] != found)
    stop(BAD_MODEL, "%s gives other shapes than it describes; export it again", model->path);
  heard = (Heard){(size_t)found, memory[TOKENS], memory[FRAMES]};
  for (size_t i = 0; i < heard.count; i++)
    if (heard.tokens[i] < 1 || (size_t)heard.tokens[i] > spec->count)
      stop(BAD_MODEL, "%s gives label %d, which its alphabet lacks", model->path, heard.tokens[i]);
  for (int i = 0; i < OUTPUTS; i++) LiteRtDestroyTensorBuffer(outputs[i]);
  LiteRtDestroyTensorBuffer(input);
  free(memory[LOG_PROBS]);
  return heard;
}

/* Symbols to text: one space where white space stands between words, none at the ends. Transcripts
 * are normalised before an alphabet is made of them, which leaves it no white space but U+0020. */
static void print_text(const Description *spec, const Heard *heard) {
  bool begun = false, space = false;
  for (size_t i = 0; i < heard->count; i++)
    for (const char *c = spec->symbols[heard->tokens[i] - 1]; *c; c++) {
      if (*c == ' ') {
        space = begun;
        continue;
      }
      if (space) putchar(' ');
      putchar(*c);
      begun = true;
      space = false;
    }
  putchar('\n');
}

int main(int count, char **arguments) {
  const char *paths[2];
  int given = 0;
  bool tokens = false;
  for (int i = 1; i < count; i++) {
    if (strcmp(arguments[i], "--tokens") == 0)
      tokens = true;
    else if (arguments[i][0] == '-' || given == 2)
      given = 3;
    else if (given < 2)
      paths[given++] = arguments[i];
  }
  if (given != 2) {
    fputs("usage: transcribe MODEL.tflite RECORDING.wav [--tokens]\n", stderr);
    return USAGE;
  }
  Model model = open_model(paths[0]);
  size_t samples;
  float *waveform = read_wav(paths[1], model.description.sample_rate, &samples);
  Heard heard = transcribe(&model, waveform, samples);
  if (tokens)
    for (size_t i = 0; i < heard.count; i++)
      printf("%d\t%s\n", heard.frames[i], model.description.symbols[heard.tokens[i] - 1]);
  else
    print_text(&model.description, &heard);
  free(heard.tokens);
  free(heard.frames);
  free(waveform);
  close_model(&model);
  if (fflush(stdout) != 0) stop(REFUSED, "the text cannot be written");
  return 0;
}
