/* A stand-in for libcuda.so.1: device memory is ordinary memory, and the two kernels are written in C.
 * It sees whether every call has what the driver API wants of it, and whether everything is given back. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef int status;
typedef void *object;
enum { OK = 0, INVALID_VALUE = 1, OUT_OF_MEMORY = 2, NOT_INITIALIZED = 3, INVALID_CONTEXT = 201 };
static int started, context, streams[64], functions[2], events[2];
static long live; /* allocations, streams, events, contexts and modules that have not been given back */
static long calls; /* FAKE_FAIL=n lets the n-th call that makes something fail */
static int refused(void) {
    const char *text = getenv("FAKE_FAIL");
    return ++calls == (text ? atol(text) : 0);
}
#define MAY_FAIL if (refused()) return OUT_OF_MEMORY
static __thread object current;
#define NEED_CONTEXT if (current != &context) return INVALID_CONTEXT

__attribute__((destructor)) static void report(void) { fprintf(stderr, "calls %ld live %ld\n", calls, live); }

status cuInit(unsigned flags) { return started = 1, flags ? INVALID_VALUE : OK; }
status cuDriverGetVersion(int *version) { return *version = 12080, OK; }
status cuGetErrorName(status code, const char **text) {
    return *text = code == OUT_OF_MEMORY ? "CUDA_ERROR_OUT_OF_MEMORY" : "CUDA_ERROR_INVALID_VALUE", OK;
}
status cuGetErrorString(status code, const char **text) {
    return *text = code == OUT_OF_MEMORY ? "out of memory" : "invalid argument", OK;
}
status cuDeviceGetCount(int *count) { return *count = 1, started ? OK : NOT_INITIALIZED; }
status cuDeviceGet(int *device, int ordinal) { return *device = ordinal, ordinal ? INVALID_VALUE : OK; }
status cuDeviceGetUuid_v2(unsigned char *uuid, int device) {
    for (int i = 0; i < 16; i++) uuid[i] = i + 1;
    return OK;
}
status cuDeviceGetAttribute(int *value, int attribute, int device) {
    static const int values[] = {0, 1024, 1024, 1024, 64, 2147483647, 65535, 65535, 49152, 0, 32};
    *value = attribute == 16 ? 132 : attribute < 11 ? values[attribute] : 0;
    return *value ? OK : INVALID_VALUE;
}
status cuDevicePrimaryCtxRetain(object *handle, int device) { MAY_FAIL; return live++, *handle = &context, OK; }
status cuDevicePrimaryCtxRelease_v2(int device) { return live--, OK; }
status cuCtxSetCurrent(object handle) { return current = handle, OK; }
status cuModuleLoadData(object *module, const char *image) {
    NEED_CONTEXT;
    MAY_FAIL;
    if (strncmp(image, ".version", 8) || !strstr(image, ".entry saxpy(") || !strstr(image, ".entry burn(")) return INVALID_VALUE;
    return live++, *module = functions, OK;
}
status cuModuleUnload(object module) { NEED_CONTEXT; return live--, OK; }
status cuModuleGetFunction(object *function, object module, const char *name) {
    MAY_FAIL;
    return *function = &functions[strcmp(name, "saxpy") ? 1 : 0], OK;
}
status cuMemAlloc_v2(uint64_t *address, size_t size) {
    NEED_CONTEXT;
    MAY_FAIL;
    if (size > 1ull << 32) return OUT_OF_MEMORY;
    return live++, *address = (uint64_t)malloc(size), OK;
}
status cuMemFree_v2(uint64_t address) { NEED_CONTEXT; return live--, free((void *)address), OK; }
status cuMemHostAlloc(void **address, size_t size, unsigned flags) { MAY_FAIL; NEED_CONTEXT; return live++, *address = malloc(size), OK; }
status cuMemFreeHost(void *address) { NEED_CONTEXT; return live--, free(address), OK; }
status cuStreamCreate(object *stream, unsigned flags) {
    static int next;
    NEED_CONTEXT;
    MAY_FAIL;
    return live++, *stream = &streams[next++ % 64], flags == 1 ? OK : INVALID_VALUE;
}
status cuStreamDestroy_v2(object stream) { NEED_CONTEXT; return live--, OK; }
status cuStreamSynchronize(object stream) { NEED_CONTEXT; return OK; }
status cuEventCreate(object *event, unsigned flags) { MAY_FAIL; static int next; return live++, *event = &events[next++ % 2], OK; }
status cuEventDestroy_v2(object event) { return live--, OK; }
status cuEventRecord(object event, object stream) { NEED_CONTEXT; return OK; }
status cuEventElapsedTime(float *milliseconds, object first, object second) { return *milliseconds = 0.25f, OK; }
status cuEventElapsedTime_v2(float *milliseconds, object first, object second) { return *milliseconds = 0.25f, OK; }
status cuMemcpyHtoDAsync_v2(uint64_t to, const void *from, size_t size, object s) { NEED_CONTEXT; return memcpy((void *)to, from, size), OK; }
status cuMemcpyDtoHAsync_v2(void *to, uint64_t from, size_t size, object s) { NEED_CONTEXT; return memcpy(to, (void *)from, size), OK; }
status cuMemcpyDtoDAsync_v2(uint64_t to, uint64_t from, size_t size, object s) { NEED_CONTEXT; return memcpy((void *)to, (void *)from, size), OK; }
status cuLaunchKernel(object function, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by, unsigned bz,
                      unsigned shared, object stream, void **parameters, void **extra) {
    NEED_CONTEXT;
    int saxpy = function == &functions[0];
    uint32_t n = *(uint32_t *)parameters[saxpy ? 3 : 1];
    if ((uint64_t)gx * bx < n || gy * gz * by * bz != 1 || bx > 1024) return INVALID_VALUE;
    if (saxpy) {
        float a = *(float *)parameters[0], *x = *(float **)parameters[1], *y = *(float **)parameters[2];
        for (uint32_t i = 0; i < n; i++) y[i] = fmaf(a, x[i], y[i]);
    } else {
        float *y = *(float **)parameters[0];
        for (uint32_t rounds = *(uint32_t *)parameters[2]; rounds--;)
            for (uint32_t i = 0; i < n; i++) y[i] = fmaf(y[i], 0.5f, 1.0f);
    }
    return OK;
}
status cuGetProcAddress_v2(const char *name, void **address, int version, uint64_t flags, int *found) {
    char newer[128];
    snprintf(newer, sizeof newer, "%s_v2", name);
    if (!(*address = dlsym(RTLD_DEFAULT, newer))) *address = dlsym(RTLD_DEFAULT, name);
    if (found) *found = *address ? 0 : 1;
    return *address ? OK : 500;
}
