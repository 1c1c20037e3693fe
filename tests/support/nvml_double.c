/* A test double of NVIDIA's management library (libnvidia-ml.so.1).
 *
 * Any number of GPUs whose power follows a known curve over CLOCK_MONOTONIC. The energy
 * counter is that curve's closed-form integral, so that independent processes agree on it
 * and a test knows the joules of any window. Written against the public header's names and
 * signatures; it drives no hardware and holds no code of NVIDIA's.
 *
 * Controls (environment; a list has one entry a GPU, separated by ';', the last repeats):
 *   NVML_DOUBLE_GPUS            number of GPUs (1)
 *   NVML_DOUBLE_POWER           const:W | square:LOW_W:HIGH_W:PERIOD_S:DUTY[:PHASE_S]   (const:100)
 *                               square is HIGH for the first DUTY share of each period
 *   NVML_DOUBLE_COUNTER_S       the energy counter moves every so many seconds; 0: always (0)
 *   NVML_DOUBLE_COUNTER_SCALE   the counter shows so many times the true energy (1)
 *   NVML_DOUBLE_COUNTER_RESET   monotonic second at which the counter restarts from 0 (never)
 *   NVML_DOUBLE_COUNTER_STILL   monotonic second from which the counter stands still (never)
 *   NVML_DOUBLE_ARCH            NVML architecture number: 4 is Pascal, 9 is Hopper (9)
 *   NVML_DOUBLE_UUID            begin of every UUID (aaaa)
 *   NVML_DOUBLE_NAME            name of each GPU, several separated by ';' (Double GPU)
 *   NVML_DOUBLE_MIG             1: the GPU is split into slices (0)
 *   NVML_DOUBLE_EVENTS          clocks' event reasons, a bit mask (0)
 *   NVML_DOUBLE_EVENTS_FROM     monotonic second from which they are set (always)
 *   NVML_DOUBLE_ROOT            0: setting anything is refused for want of privilege (1)
 *   NVML_DOUBLE_STATE           folder in which settings are kept, seen by all processes (none)
 *   NVML_DOUBLE_FAIL            SYMBOL[@GPU]=CODE[>MONOTONIC_S], several separated by ','
 *   NVML_DOUBLE_READ_S          seconds that a read of energy or power takes, as where the driver is busy (0)
 *   NVML_DOUBLE_LOG             file that gets a line for every call: symbol, GPU, process
 */
#define _GNU_SOURCE
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

typedef struct { int index; } Device;
typedef Device *Handle;
typedef int Return;

enum { OK = 0, UNINITIALIZED = 1, BAD_ARGUMENT = 2, NOT_SUPPORTED = 3, NO_PERMISSION = 4, NOT_FOUND = 6 };
enum { MOST_GPUS = 64, FIELD_AVERAGE = 185, FIELD_INSTANT = 186, VOLTA = 5 };

static Device devices[MOST_GPUS];
static int started;

/* ---- controls ---------------------------------------------------------------------- */

static const char *control(const char *name, const char *otherwise) {
    const char *value = getenv(name);
    return value && *value ? value : otherwise;
}

static double control_number(const char *name, double otherwise) {
    const char *value = getenv(name);
    return value && *value ? atof(value) : otherwise;
}

/* The GPU's own entry of a list; the last one where the list is shorter. */
static const char *entry(const char *list, int gpu, char *out, size_t size) {
    const char *begin = list;
    for (int i = 0; i < gpu; i++) {
        const char *next = strchr(begin, ';');
        if (!next) break;
        begin = next + 1;
    }
    size_t length = strcspn(begin, ";");
    if (length >= size) length = size - 1;
    memcpy(out, begin, length);
    out[length] = 0;
    return out;
}

static double entry_number(const char *name, int gpu, double otherwise) {
    char text[64];
    const char *value = entry(control(name, ""), gpu, text, sizeof text);
    return *value ? strtod(value, NULL) : otherwise;
}

static long entry_bits(const char *name, int gpu) {
    char text[64];
    return strtol(entry(control(name, "0"), gpu, text, sizeof text), NULL, 0);
}

static int gpus(void) { return (int)control_number("NVML_DOUBLE_GPUS", 1); }

static double now_s(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

/* The code of an injected failure for this symbol and GPU (-1: no GPU), 0 where none is due. */
static Return failure(const char *symbol, int gpu) {
    const char *log = getenv("NVML_DOUBLE_LOG");
    if (log && *log) {
        FILE *file = fopen(log, "a");
        if (file) {
            fprintf(file, "%s %d %d\n", symbol, gpu, (int)getpid());
            fclose(file);
        }
    }
    char list[4096], *save = NULL;
    snprintf(list, sizeof list, "%s", control("NVML_DOUBLE_FAIL", ""));
    for (char *one = strtok_r(list, ",", &save); one; one = strtok_r(NULL, ",", &save)) {
        char name[128] = "";
        int at = -1, code = 0;
        double from = -1;
        char *equals = strchr(one, '='), *gpu_at = strchr(one, '@'), *after = strchr(one, '>');
        if (!equals) continue;
        size_t length = strcspn(one, "@=");
        snprintf(name, sizeof name, "%.*s", (int)length, one);
        if (gpu_at && gpu_at < equals) at = atoi(gpu_at + 1);
        code = atoi(equals + 1);
        if (after) from = atof(after + 1);
        if (strcmp(name, symbol) == 0 && (at < 0 || at == gpu) && now_s() >= from) return code;
    }
    return OK;
}

/* ---- the truth: power and energy ----------------------------------------------------- */

typedef struct { int square; double low, high, period, duty, phase; } Curve;

static Curve curve_of(int gpu) {
    char text[128];
    Curve c = {0, 100, 100, 1, 1, 0};
    entry(control("NVML_DOUBLE_POWER", "const:100"), gpu, text, sizeof text);
    if (sscanf(text, "square:%lf:%lf:%lf:%lf:%lf", &c.low, &c.high, &c.period, &c.duty, &c.phase) >= 4) {
        c.square = 1;
    } else if (sscanf(text, "const:%lf", &c.high) == 1) {
        c.low = c.high;
    }
    return c;
}

static double power_w(int gpu, double t) {
    Curve c = curve_of(gpu);
    if (!c.square) return c.high;
    double place = fmod(t + c.phase, c.period);
    return place < c.duty * c.period ? c.high : c.low;
}

/* Integral of the power from 0 to t. */
static double energy_j(int gpu, double t) {
    Curve c = curve_of(gpu);
    if (!c.square) return c.high * t;
    double whole = floor((t + c.phase) / c.period), rest = t + c.phase - whole * c.period;
    double high_s = c.duty * c.period;
    double one = c.high * high_s + c.low * (c.period - high_s);
    double part = rest < high_s ? c.high * rest : c.high * high_s + c.low * (rest - high_s);
    return whole * one + part;
}

static double counter_j(int gpu, double t) {
    double period = entry_number("NVML_DOUBLE_COUNTER_S", gpu, 0);
    double still = entry_number("NVML_DOUBLE_COUNTER_STILL", gpu, INFINITY);
    double reset = entry_number("NVML_DOUBLE_COUNTER_RESET", gpu, INFINITY);
    if (t > still) t = still;
    if (period > 0) t = floor(t / period) * period;
    double shown = energy_j(gpu, t);
    if (t >= reset) shown -= energy_j(gpu, reset);
    return shown * entry_number("NVML_DOUBLE_COUNTER_SCALE", gpu, 1);
}

/* ---- settings that processes share ----------------------------------------------------- */

static double setting(const char *what, int gpu, double otherwise) {
    const char *folder = getenv("NVML_DOUBLE_STATE");
    char path[4096];
    double value = otherwise;
    if (!folder || !*folder) return otherwise;
    snprintf(path, sizeof path, "%s/%s.%d", folder, what, gpu);
    FILE *file = fopen(path, "r");
    if (!file) return otherwise;
    if (fscanf(file, "%lf", &value) != 1) value = otherwise;
    fclose(file);
    return value;
}

static Return set_setting(const char *what, int gpu, double value) {
    const char *folder = getenv("NVML_DOUBLE_STATE");
    char path[4096];
    if (control_number("NVML_DOUBLE_ROOT", 1) == 0) return NO_PERMISSION;
    if (!folder || !*folder) return NOT_SUPPORTED;
    snprintf(path, sizeof path, "%s/%s.%d", folder, what, gpu);
    FILE *file = fopen(path, "w");
    if (!file) return NO_PERMISSION;
    fprintf(file, "%.0f\n", value);
    fclose(file);
    return OK;
}

/* ---- the library's calls ---------------------------------------------------------------- */

#define SYSTEM_CALL(symbol)                                      \
    do {                                                         \
        Return code_ = failure(symbol, -1);                      \
        if (code_) return code_;                                 \
    } while (0)

#define DEVICE_CALL(symbol, handle)                              \
    do {                                                         \
        if (!started) return UNINITIALIZED;                      \
        if (!(handle)) return BAD_ARGUMENT;                      \
        Return code_ = failure(symbol, (handle)->index);         \
        if (code_) return code_;                                 \
    } while (0)

/* Wait as the driver does where it is asked by many. */
static void wait_to_read(int gpu) {
    double seconds = entry_number("NVML_DOUBLE_READ_S", gpu, 0);
    struct timespec wait = {(time_t)seconds, (long)((seconds - floor(seconds)) * 1e9)};
    if (seconds > 0) nanosleep(&wait, NULL);
}

static Return copy_text(char *out, unsigned size, const char *text) {
    snprintf(out, size, "%s", text);
    return OK;
}

static void uuid_of(int gpu, char *out, size_t size) {
    snprintf(out, size, "GPU-%s0000-0000-0000-0000-%012d", control("NVML_DOUBLE_UUID", "aaaa"), gpu);
}

Return nvmlInitWithFlags(unsigned flags) {
    (void)flags;
    SYSTEM_CALL("nvmlInitWithFlags");
    for (int i = 0; i < MOST_GPUS; i++) devices[i].index = i;
    started++;
    return OK;
}
Return nvmlInit_v2(void) { return nvmlInitWithFlags(0); }
Return nvmlInit(void) { return nvmlInitWithFlags(0); }

Return nvmlShutdown(void) {
    if (!started) return UNINITIALIZED;
    started--;
    return OK;
}

const char *nvmlErrorString(Return code) {
    static char text[32];
    snprintf(text, sizeof text, "Double error %d", code);
    return text;
}

Return nvmlSystemGetDriverVersion(char *out, unsigned size) {
    SYSTEM_CALL("nvmlSystemGetDriverVersion");
    return copy_text(out, size, control("NVML_DOUBLE_DRIVER", "999.01"));
}
Return nvmlSystemGetNVMLVersion(char *out, unsigned size) { return copy_text(out, size, "13.999.01"); }
Return nvmlSystemGetCudaDriverVersion_v2(int *version) {
    SYSTEM_CALL("nvmlSystemGetCudaDriverVersion_v2");
    *version = (int)control_number("NVML_DOUBLE_CUDA", 13000);
    return OK;
}
Return nvmlSystemGetCudaDriverVersion(int *version) {
    SYSTEM_CALL("nvmlSystemGetCudaDriverVersion");
    *version = (int)control_number("NVML_DOUBLE_CUDA", 13000);
    return OK;
}

Return nvmlDeviceGetCount_v2(unsigned *count) {
    SYSTEM_CALL("nvmlDeviceGetCount_v2");
    *count = (unsigned)gpus();
    return OK;
}

Return nvmlDeviceGetHandleByIndex_v2(unsigned index, Handle *out) {
    if (!started) return UNINITIALIZED;
    if ((int)index >= gpus()) return BAD_ARGUMENT;
    Return code = failure("nvmlDeviceGetHandleByIndex_v2", (int)index);
    if (code) return code;
    *out = &devices[index];
    return OK;
}

Return nvmlDeviceGetHandleByUUID(const char *uuid, Handle *out) {
    char own[96];
    for (int i = 0; i < gpus(); i++) {
        uuid_of(i, own, sizeof own);
        if (strcmp(uuid, own) == 0) {
            *out = &devices[i];
            return OK;
        }
    }
    return NOT_FOUND;
}

Return nvmlDeviceGetIndex(Handle d, unsigned *out) {
    DEVICE_CALL("nvmlDeviceGetIndex", d);
    *out = (unsigned)d->index;
    return OK;
}
Return nvmlDeviceGetName(Handle d, char *out, unsigned size) {
    DEVICE_CALL("nvmlDeviceGetName", d);
    char own[96];
    return copy_text(out, size, entry(control("NVML_DOUBLE_NAME", "Double GPU"), d->index, own, sizeof own));
}
Return nvmlDeviceGetUUID(Handle d, char *out, unsigned size) {
    DEVICE_CALL("nvmlDeviceGetUUID", d);
    char own[96];
    uuid_of(d->index, own, sizeof own);
    return copy_text(out, size, own);
}
Return nvmlDeviceGetArchitecture(Handle d, unsigned *out) {
    DEVICE_CALL("nvmlDeviceGetArchitecture", d);
    *out = (unsigned)entry_number("NVML_DOUBLE_ARCH", d->index, 9);
    return OK;
}
Return nvmlDeviceGetC2cModeInfoV(Handle d, void *out) {
    (void)out;
    DEVICE_CALL("nvmlDeviceGetC2cModeInfoV", d);
    return NOT_SUPPORTED;
}
Return nvmlDeviceGetMigMode(Handle d, unsigned *current, unsigned *pending) {
    DEVICE_CALL("nvmlDeviceGetMigMode", d);
    *current = *pending = (unsigned)entry_number("NVML_DOUBLE_MIG", d->index, 0);
    return OK;
}

Return nvmlDeviceGetTotalEnergyConsumption(Handle d, unsigned long long *millijoules) {
    DEVICE_CALL("nvmlDeviceGetTotalEnergyConsumption", d);
    if (entry_number("NVML_DOUBLE_ARCH", d->index, 9) < VOLTA) return NOT_SUPPORTED;
    wait_to_read(d->index);
    *millijoules = (unsigned long long)llround(counter_j(d->index, now_s()) * 1000);
    return OK;
}
Return nvmlDeviceGetPowerUsage(Handle d, unsigned *milliwatts) {
    DEVICE_CALL("nvmlDeviceGetPowerUsage", d);
    *milliwatts = (unsigned)lround(power_w(d->index, now_s()) * 1000);
    return OK;
}

typedef struct {
    unsigned fieldId, scopeId;
    long long timestamp, latencyUsec;
    unsigned valueType;
    Return nvmlReturn;
    union { double d; unsigned ui; unsigned long long ull; } value;
} FieldValue;

Return nvmlDeviceGetFieldValues(Handle d, int count, FieldValue *values) {
    DEVICE_CALL("nvmlDeviceGetFieldValues", d);
    wait_to_read(d->index);
    int old = entry_number("NVML_DOUBLE_ARCH", d->index, 9) < VOLTA;
    for (int i = 0; i < count; i++) {
        int power = values[i].fieldId == FIELD_AVERAGE || values[i].fieldId == FIELD_INSTANT;
        values[i].nvmlReturn = power && !old ? OK : NOT_SUPPORTED;
        values[i].valueType = 1;
        values[i].value.ui = (unsigned)lround(power_w(d->index, now_s()) * 1000);
    }
    return OK;
}

Return nvmlDeviceGetTemperature(Handle d, int sensor, unsigned *celsius) {
    (void)sensor;
    DEVICE_CALL("nvmlDeviceGetTemperature", d);
    *celsius = 40 + (unsigned)d->index;
    return OK;
}

typedef struct { unsigned version; int sensor; int celsius; } TemperatureV;

Return nvmlDeviceGetTemperatureV(Handle d, TemperatureV *out) {
    DEVICE_CALL("nvmlDeviceGetTemperatureV", d);
    out->celsius = 40 + d->index;
    return OK;
}
Return nvmlDeviceGetClockInfo(Handle d, int kind, unsigned *mhz) {
    DEVICE_CALL("nvmlDeviceGetClockInfo", d);
    *mhz = kind == 2 ? 2600 : 1500;
    return OK;
}
Return nvmlDeviceGetMaxClockInfo(Handle d, int kind, unsigned *mhz) {
    DEVICE_CALL("nvmlDeviceGetMaxClockInfo", d);
    *mhz = kind == 2 ? 2600 : 1980;
    return OK;
}
Return nvmlDeviceGetCurrentClocksEventReasons(Handle d, unsigned long long *reasons) {
    DEVICE_CALL("nvmlDeviceGetCurrentClocksEventReasons", d);
    double from = entry_number("NVML_DOUBLE_EVENTS_FROM", d->index, 0);
    *reasons = now_s() >= from ? (unsigned long long)entry_bits("NVML_DOUBLE_EVENTS", d->index) : 0;
    return OK;
}
Return nvmlDeviceGetCurrentClocksThrottleReasons(Handle d, unsigned long long *reasons) {
    return nvmlDeviceGetCurrentClocksEventReasons(d, reasons);
}

typedef struct { unsigned gpu, memory; } Utilization;

Return nvmlDeviceGetUtilizationRates(Handle d, Utilization *out) {
    DEVICE_CALL("nvmlDeviceGetUtilizationRates", d);
    out->gpu = 50;
    out->memory = 20;
    return OK;
}

typedef struct { unsigned long long total, free, used; } Memory;

Return nvmlDeviceGetMemoryInfo(Handle d, Memory *out) {
    DEVICE_CALL("nvmlDeviceGetMemoryInfo", d);
    out->total = 80ULL << 30;
    out->used = 3ULL << 30;
    out->free = out->total - out->used;
    return OK;
}

Return nvmlDeviceGetPersistenceMode(Handle d, unsigned *mode) {
    DEVICE_CALL("nvmlDeviceGetPersistenceMode", d);
    *mode = (unsigned)setting("persistence", d->index, 1);
    return OK;
}
Return nvmlDeviceSetPersistenceMode(Handle d, unsigned mode) {
    DEVICE_CALL("nvmlDeviceSetPersistenceMode", d);
    return set_setting("persistence", d->index, mode);
}
Return nvmlDeviceGetPowerManagementLimit(Handle d, unsigned *milliwatts) {
    DEVICE_CALL("nvmlDeviceGetPowerManagementLimit", d);
    *milliwatts = (unsigned)setting("limit", d->index, 700000);
    return OK;
}
Return nvmlDeviceGetPowerManagementDefaultLimit(Handle d, unsigned *milliwatts) {
    DEVICE_CALL("nvmlDeviceGetPowerManagementDefaultLimit", d);
    *milliwatts = 700000;
    return OK;
}
Return nvmlDeviceGetPowerManagementLimitConstraints(Handle d, unsigned *least, unsigned *most) {
    DEVICE_CALL("nvmlDeviceGetPowerManagementLimitConstraints", d);
    *least = 200000;
    *most = 700000;
    return OK;
}
Return nvmlDeviceSetPowerManagementLimit(Handle d, unsigned milliwatts) {
    DEVICE_CALL("nvmlDeviceSetPowerManagementLimit", d);
    if (milliwatts < 200000 || milliwatts > 700000) return BAD_ARGUMENT;
    return set_setting("limit", d->index, milliwatts);
}
