/* A double of CUDA's driver library: only the numbering of devices, which is not the driver library's.
 *
 *   CUDA_DOUBLE_ORDER   nvidia-smi's indices in CUDA's order, such as 1,0: the fastest first
 *
 * The UUIDs are those of nvml_double.c at its default. CUDA_DEVICE_ORDER and CUDA_VISIBLE_DEVICES (as numbers)
 * act as CUDA has them.
 */
#include <stdlib.h>
#include <string.h>

enum { MOST = 16, NOT_STARTED = 3, BAD_DEVICE = 101 };

static int order[MOST], count = -1;

static int read_list(const char *text, int *out) {
    int n = 0;
    for (const char *at = text; at && *at && n < MOST; at = strchr(at, ','), at += at != NULL) out[n++] = atoi(at);
    return n;
}

int cuInit(unsigned flags) {
    int all[MOST], visible[MOST], sorted = 0;
    const char *wanted = getenv("CUDA_VISIBLE_DEVICES"), *bus = getenv("CUDA_DEVICE_ORDER");
    int n = read_list(getenv("CUDA_DOUBLE_ORDER"), all);
    sorted = bus && strcmp(bus, "PCI_BUS_ID") == 0;
    for (int i = 0; sorted && i < n; i++) all[i] = i;
    count = 0;
    int shown = wanted ? read_list(wanted, visible) : n;
    for (int i = 0; i < shown; i++) order[count++] = all[wanted ? visible[i] : i];
    return flags ? BAD_DEVICE : 0;
}
int cuDeviceGetCount(int *out) {
    *out = count;
    return count < 0 ? NOT_STARTED : 0;
}
int cuDeviceGet(int *out, int number) {
    *out = number;
    return number < 0 || number >= count ? BAD_DEVICE : 0;
}
int cuDeviceGetUuid_v2(unsigned char *out, int device) {
    memset(out, 0, 16);
    out[0] = out[1] = 0xaa;
    out[15] = (unsigned char)order[device];
    return 0;
}
