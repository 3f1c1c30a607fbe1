/* Writes to regular files take half of what they are given, and every fifth is interrupted before it takes anything:
   both are what write(2) may do. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <sys/stat.h>
#include <unistd.h>

ssize_t write(int file, const void *bytes, size_t count) {
    static ssize_t (*real)(int, const void *, size_t);
    static _Thread_local unsigned calls;
    if (!real) real = (ssize_t (*)(int, const void *, size_t))dlsym(RTLD_NEXT, "write");
    struct stat status;
    if (fstat(file, &status) || !S_ISREG(status.st_mode) || count < 2) return real(file, bytes, count);
    if (++calls % 5 == 0) {
        errno = EINTR;
        return -1;
    }
    return real(file, bytes, count / 2);
}
