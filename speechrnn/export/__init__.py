"""From a trained model to what others run: a SavedModel, or one ``.tflite`` for a device."""
