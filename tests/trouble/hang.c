/* A disk that hangs on command, for a test to preload into the service.
 *
 * Reads of the database and its log wait as long as the file $HANG_READS is there, writes and flushes as long as
 * $HANG_WRITES is. SQLite takes its system calls from the C library, so these stand before them. The threads of the
 * runtime, which have its name, hang as long as $HANG_RUNTIME is there.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/types.h>
#include <unistd.h>

static int ends_with(const char *text, const char *end) {
    size_t length = strlen(text), tail = strlen(end);
    return length >= tail && strcmp(text + length - tail, end) == 0;
}

static int is_of_database(int descriptor) {
    char link[64], path[4096];
    snprintf(link, sizeof link, "/proc/self/fd/%d", descriptor);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length < 0) return 0;
    path[length] = 0;
    return ends_with(path, ".db") || ends_with(path, ".db-wal");
}

static void wait_while(const char *variable, int descriptor) {
    const char *flag = getenv(variable);
    if (flag == NULL || access(flag, F_OK) != 0 || !is_of_database(descriptor)) return;
    while (access(flag, F_OK) == 0) usleep(10000);
}

#define BEFORE(variable, result, name, parameters, arguments)                        \
    result name parameters {                                                         \
        static result(*real) parameters;                                             \
        if (real == NULL) real = (result(*) parameters)dlsym(RTLD_NEXT, #name);      \
        wait_while(variable, descriptor);                                            \
        return real arguments;                                                       \
    }

BEFORE("HANG_READS", ssize_t, read, (int descriptor, void *into, size_t count), (descriptor, into, count))
BEFORE("HANG_READS", ssize_t, pread, (int descriptor, void *into, size_t count, off_t at), (descriptor, into, count, at))
BEFORE("HANG_READS", ssize_t, pread64, (int descriptor, void *into, size_t count, off64_t at),
       (descriptor, into, count, at))
BEFORE("HANG_WRITES", ssize_t, write, (int descriptor, const void *from, size_t count), (descriptor, from, count))
BEFORE("HANG_WRITES", ssize_t, pwrite, (int descriptor, const void *from, size_t count, off_t at),
       (descriptor, from, count, at))
BEFORE("HANG_WRITES", ssize_t, pwrite64, (int descriptor, const void *from, size_t count, off64_t at),
       (descriptor, from, count, at))
BEFORE("HANG_WRITES", int, fsync, (int descriptor), (descriptor))
BEFORE("HANG_WRITES", int, fdatasync, (int descriptor), (descriptor))

int epoll_wait(int poll, struct epoll_event *events, int count, int timeout) {
    static int (*real)(int, struct epoll_event *, int, int);
    const char *flag = getenv("HANG_RUNTIME");
    char name[17] = "";
    if (real == NULL) real = (int (*)(int, struct epoll_event *, int, int))dlsym(RTLD_NEXT, "epoll_wait");
    prctl(PR_GET_NAME, name);
    while (flag != NULL && strncmp(name, "tokio-", 6) == 0 && access(flag, F_OK) == 0) usleep(10000);
    return real(poll, events, count, timeout);
}
