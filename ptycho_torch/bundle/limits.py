"""What a real bundle never exceeds; checked from the bytes really read, not from what headers claim."""

MAX_MEMBERS = 10_000
MAX_DIRECTORY_BYTES = 4 << 20  # of a zip's central directory
MAX_FOLDER_DEPTH = 16
MAX_MEMBER_BYTES = 4 << 30
MAX_TOTAL_BYTES = 8 << 30
MAX_RATIO = 100  # deflate reaches 1000 on zeros; weights stay near 1
RATIO_FREE_BYTES = 4 << 20  # below this a high ratio is harmless
MAX_JSON_BYTES = 4 << 20

MAX_PICKLE_BYTES = 8 << 20  # the largest seen has 35 KB
MAX_PICKLE_OPS = 500_000
MAX_PICKLE_DEPTH = 64
MAX_PICKLE_ITEMS = 500_000  # values counted with repetition, so that shared references cannot multiply
MAX_PICKLE_WORK_BYTES = 64 << 20  # copied by all calls of one pickle together
MAX_INTEGER_BITS = 128
MAX_KEY_LENGTH = 4096  # characters of a dictionary key, because equal keys are compared in full
MAX_OTHER_KEYS = 4096  # keys that are no text: their hashes can be made to collide
MAX_TENSOR_AXES = 16
MAX_AXIS_LENGTH = 1 << 48
