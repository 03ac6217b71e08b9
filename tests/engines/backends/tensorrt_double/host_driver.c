/* A CUDA driver over host memory, for the real bindings: contexts are checked for each thread, copies are done at once.
   Functions that are not here answer 801, "not supported", to pycuda, for which the test makes them, and are not found by
   cuda-bindings, which asks cuGetProcAddress for each. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef unsigned long long ptr;
enum { OK = 0, INVALID_VALUE = 1, OUT_OF_MEMORY = 2, INVALID_CONTEXT = 201, INVALID_HANDLE = 400, NOT_READY = 600 };
enum { DEPTH = 64, SIZES = 4096 };

static __thread void *stack[DEPTH];
static __thread int depth;
static int primary, clock_ms;
static long allocated, streams, events;
static struct { void *at; size_t size; } blocks[SIZES];

struct event { int timed; int at; };

#define NEEDS_CONTEXT if (!depth) return INVALID_CONTEXT

static int take(void **out, size_t size) {
    NEEDS_CONTEXT;
    for (int i = 0; i < SIZES; i++)
        if (!blocks[i].at) {
            if (posix_memalign(out, 256, size ? size : 1)) return OUT_OF_MEMORY;
            memset(*out, 0xA5, size);
            blocks[i].at = *out, blocks[i].size = size;
            __sync_fetch_and_add(&allocated, (long)size);
            return OK;
        }
    return OUT_OF_MEMORY;
}

static int give(void *at) {
    NEEDS_CONTEXT;
    for (int i = 0; i < SIZES; i++)
        if (blocks[i].at == at) {
            __sync_fetch_and_sub(&allocated, (long)blocks[i].size);
            free(at);
            blocks[i].at = 0;
            return OK;
        }
    return INVALID_VALUE;
}

/* What the test asks. */
long host_driver_allocated(void) { return allocated; }
long host_driver_streams(void) { return streams; }
long host_driver_events(void) { return events; }
int host_driver_depth(void) { return depth; }

/* The newest variant that is here of a function asked for by its plain name. */
int cuGetProcAddress_v2(const char *name, void **function, int version, unsigned long long flags, int *status) {
    static const char *suffixes[] = {"_v3", "_v2", ""};
    char full[128];
    void *self = dlopen("libcuda.so.1", RTLD_LAZY | RTLD_NOLOAD);
    *function = 0;
    for (int i = 0; self && i < 3 && !*function; i++) {
        snprintf(full, sizeof full, "%s%s", name, suffixes[i]);
        *function = dlsym(self, full);
    }
    if (status) *status = *function ? 0 : 1;
    return OK;
}
int cuGetProcAddress(const char *name, void **function, int version, unsigned long long flags) {
    return cuGetProcAddress_v2(name, function, version, flags, 0);
}

int cuInit(unsigned flags) { return flags ? INVALID_VALUE : OK; }
int cuDriverGetVersion(int *version) { *version = 13000; return OK; }
int cuDeviceGetCount(int *count) { *count = 1; return OK; }
int cuDeviceGet(int *device, int number) { *device = number; return number ? INVALID_VALUE : OK; }
int cuDeviceGetName(char *name, int size, int device) { strncpy(name, "Host memory", (size_t)size); return OK; }
int cuDeviceComputeCapability(int *major, int *minor, int device) { *major = 9, *minor = 0; return OK; }
int cuDeviceGetAttribute(int *value, int attribute, int device) { *value = attribute == 75 ? 9 : 0; return OK; }
int cuDevicePrimaryCtxRetain(void **context, int device) { *context = &primary; return OK; }
int cuDevicePrimaryCtxRelease_v2(int device) { return OK; }
int cuCtxPushCurrent_v2(void *context) {
    if (depth == DEPTH) return INVALID_VALUE;
    stack[depth++] = context;
    return OK;
}
int cuCtxPopCurrent_v2(void **context) {
    NEEDS_CONTEXT;
    depth--;
    if (context) *context = stack[depth];
    return OK;
}
int cuCtxGetDevice(int *device) { NEEDS_CONTEXT; *device = 0; return OK; }
int cuCtxGetApiVersion(void *context, unsigned *version) { *version = 13000; return OK; }
int cuCtxSynchronize(void) { NEEDS_CONTEXT; return OK; }
int cuGetErrorString(int error, const char **text) { *text = error == OUT_OF_MEMORY ? "out of memory" : "failed"; return OK; }

int cuMemGetInfo_v2(size_t *left, size_t *total) { NEEDS_CONTEXT; *total = 1u << 30, *left = *total - (size_t)allocated; return OK; }
int cuMemAlloc_v2(ptr *out, size_t size) { return take((void **)out, size); }
int cuMemFree_v2(ptr at) { return give((void *)at); }
int cuMemHostAlloc(void **out, size_t size, unsigned flags) { return take(out, size); }
int cuMemFreeHost(void *at) { return give(at); }

int cuStreamCreate(void **stream, unsigned flags) {
    NEEDS_CONTEXT;
    *stream = malloc(16);
    __sync_fetch_and_add(&streams, 1);
    return OK;
}
int cuStreamDestroy_v2(void *stream) { NEEDS_CONTEXT; free(stream); __sync_fetch_and_sub(&streams, 1); return OK; }
int cuStreamSynchronize(void *stream) { NEEDS_CONTEXT; return stream ? OK : INVALID_HANDLE; }
int cuStreamQuery(void *stream) { NEEDS_CONTEXT; return OK; }

int cuMemcpyHtoDAsync_v2(ptr to, const void *from, size_t size, void *stream) {
    NEEDS_CONTEXT;
    if (!stream) return INVALID_HANDLE;
    memcpy((void *)to, from, size);
    return OK;
}
int cuMemcpyDtoHAsync_v2(void *to, ptr from, size_t size, void *stream) {
    NEEDS_CONTEXT;
    if (!stream) return INVALID_HANDLE;
    memcpy(to, (void *)from, size);
    return OK;
}

int cuEventCreate(void **event, unsigned flags) {
    NEEDS_CONTEXT;
    struct event *made = calloc(1, sizeof *made);
    made->timed = !(flags & 2);
    *event = made;
    __sync_fetch_and_add(&events, 1);
    return OK;
}
int cuEventDestroy_v2(void *event) { NEEDS_CONTEXT; free(event); __sync_fetch_and_sub(&events, 1); return OK; }
int cuEventRecord(void *event, void *stream) {
    NEEDS_CONTEXT;
    ((struct event *)event)->at = __sync_add_and_fetch(&clock_ms, 1);
    return OK;
}
int cuEventSynchronize(void *event) { NEEDS_CONTEXT; return OK; }
int cuEventQuery(void *event) { NEEDS_CONTEXT; return OK; }
int cuEventElapsedTime_v2(float *ms, void *start, void *end) {
    struct event *first = start, *last = end;
    NEEDS_CONTEXT;
    if (!first->timed || !last->timed) return INVALID_HANDLE;
    if (!first->at || !last->at) return NOT_READY;
    *ms = (float)(last->at - first->at);
    return OK;
}
int cuEventElapsedTime(float *ms, void *start, void *end) { return cuEventElapsedTime_v2(ms, start, end); }
