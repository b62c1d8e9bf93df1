"""What a real bundle never exceeds; checked from the bytes really read, not from what headers claim."""

MAX_MEMBERS = 10_000
MAX_MEMBER_BYTES = 4 << 30
MAX_TOTAL_BYTES = 8 << 30
MAX_RATIO = 200  # deflate reaches 1000 on zeros; weights stay near 1
RATIO_FREE_BYTES = 4 << 20  # below this a high ratio is harmless
MAX_PICKLE_BYTES = 32 << 20
MAX_PICKLE_OPS = 2_000_000
MAX_PICKLE_DEPTH = 64
MAX_PICKLE_ITEMS = 1_000_000  # containers and leaves counted with repetition, so that shared references cannot multiply
MAX_TENSOR_AXES = 16
