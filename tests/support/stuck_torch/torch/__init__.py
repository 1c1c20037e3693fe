"""Put on PYTHONPATH by a test: an import of torch that never ends, and holds the main thread in C."""

import ctypes
import os

os.write(1, b"importing torch\n")  # also where sys.stdout leads nowhere
_library, _mutex = ctypes.CDLL(None), ctypes.create_string_buffer(64)
_library.pthread_mutex_lock(_mutex)
_library.pthread_mutex_lock(_mutex)
