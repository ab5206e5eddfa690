/* A stand-in for libnvidia-ml.so.1 with one GPU, or with two MIG instances of it, whose state the environment says. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef void *handle;
static int whole = 0, instances[2] = {1, 2};
static unsigned long long number(const char *name, unsigned long long otherwise) {
    const char *text = getenv(name);
    return text ? strtoull(text, NULL, 10) : otherwise;
}
enum { OK = 0, INVALID = 2, UNSUPPORTED = 3, NOT_FOUND = 6, SMALL = 7, LOST = 15 };

int nvmlInitWithFlags(unsigned flags) { return number("FAKE_INIT", 0); }
int nvmlShutdown(void) { return OK; }
const char *nvmlErrorString(int code) {
    return code == LOST ? "GPU is lost" : code == 9 ? "Driver Not Loaded" : "some error";
}
int nvmlDeviceGetCount_v2(unsigned *count) { return *count = number("FAKE_COUNT", 1), OK; }
int nvmlDeviceGetHandleByIndex_v2(unsigned index, handle *device) { return *device = &whole, OK; }
int nvmlDeviceGetUUID(handle device, char *text, unsigned size) {
    int part = *(int *)device;
    if (part) snprintf(text, size, "MIG-00000000-0000-0000-0000-00000000000%d", part);
    else snprintf(text, size, "GPU-01020304-0506-0708-090a-0b0c0d0e0f10");
    return OK;
}
int nvmlDeviceGetHandleByUUID(const char *uuid, handle *device) {
    if (!strncmp(uuid, "MIG-", 4)) *device = &instances[uuid[strlen(uuid) - 1] - '1'];
    else if (!strncmp(uuid, "GPU-0102", 8)) *device = &whole;
    else return NOT_FOUND;
    return OK;
}
int nvmlDeviceGetName(handle device, char *text, unsigned size) { return snprintf(text, size, "Stand-in 1000"), OK; }
int nvmlDeviceGetMemoryInfo(handle device, unsigned long long *info) {
    info[0] = *(int *)device ? 4ull << 30 : 8ull << 30;
    info[2] = number("FAKE_USED", 1 << 20);
    info[1] = info[0] - info[2];
    return OK;
}
int nvmlDeviceGetCudaComputeCapability(handle device, int *major, int *minor) { return *major = 9, *minor = 0, OK; }
int nvmlDeviceGetMigMode(handle device, unsigned *now, unsigned *next) {
    if (!getenv("FAKE_MIG")) return UNSUPPORTED;
    return *now = *next = 1, OK;
}
int nvmlDeviceGetMaxMigDeviceCount(handle device, unsigned *count) { return *count = 7, OK; }
int nvmlDeviceGetMigDeviceHandleByIndex(handle device, unsigned index, handle *instance) {
    return index < 2 ? (*instance = &instances[index], OK) : NOT_FOUND;
}
struct process { unsigned pid; unsigned long long memory; unsigned gpu, compute; };
int nvmlDeviceGetComputeRunningProcesses_v3(handle device, unsigned *count, struct process *processes) {
    unsigned pid = number("FAKE_PID", 0);
    if (!pid) return *count = 0, OK;
    if (*count < 1 || !processes) return *count = 1, SMALL;
    processes[0] = (struct process){pid, 512ull << 20, 0, 0};
    return *count = 1, OK;
}
int nvmlDeviceGetTemperature(handle device, int sensor, unsigned *value) {
    if (*(int *)device) return INVALID; /* of an instance */
    return getenv("FAKE_LOST") ? LOST : (*value = number("FAKE_TEMPERATURE", 40), OK);
}
int nvmlDeviceGetTotalEccErrors(handle device, int kind, int since, unsigned long long *count) {
    return getenv("FAKE_ECC") ? (*count = number("FAKE_ECC", 0), OK) : UNSUPPORTED;
}
int nvmlDeviceGetRetiredPagesPendingStatus(handle device, unsigned *pending) { return UNSUPPORTED; }
int nvmlDeviceGetCurrentClocksEventReasons(handle device, unsigned long long *reasons) {
    return *reasons = number("FAKE_REASONS", 0), OK;
}
