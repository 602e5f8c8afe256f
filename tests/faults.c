/* Faults of a disk, for tests/faults.py: preloaded, it looks at every call that changes a file below one folder, and
 * lets the n-th of them fail, or all from it on; tears it; or writes all of them down, so that a power cut can be
 * played again with what was not flushed. Built by: cc -shared -fPIC -O1 -o faults.so faults.c -ldl */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { OFF, COUNT, ONCE, FROM, TORN, LOG, READ };
enum { CREATE = 1, WRITE, SYNC, RENAME, UNLINK, MKDIR, TRUNCATE, RMDIR, READING };

static char root[4096];
static int mode, point, number, log_file = -1;
static int calls;

void faults_arm(const char *folder, int how, int at, int error, const char *log) {
    snprintf(root, sizeof root, "%s", folder);
    calls = 0, point = at, number = error;
    if (log && *log) log_file = syscall(SYS_openat, AT_FDCWD, log, O_WRONLY | O_CREAT | O_TRUNC | O_APPEND, 0600);
    mode = how;
}

int faults_disarm(void) { mode = OFF; return calls; }

void faults_mark(void) { uint8_t kind = 0; if (log_file >= 0) syscall(SYS_write, log_file, &kind, 1); }

static void note(uint8_t kind, const char *path, const char *other, int64_t offset, const void *data, uint32_t n) {
    if (mode != LOG) return;
    uint32_t lengths[3] = {strlen(path), other ? strlen(other) : 0, data ? n : 0};
    syscall(SYS_write, log_file, &kind, 1), syscall(SYS_write, log_file, lengths, sizeof lengths);
    syscall(SYS_write, log_file, &offset, 8), syscall(SYS_write, log_file, path, lengths[0]);
    if (lengths[1]) syscall(SYS_write, log_file, other, lengths[1]);
    if (lengths[2]) syscall(SYS_write, log_file, data, lengths[2]);
}

static int below(const char *path) { return mode && path && !strncmp(path, root, strlen(root)); }

static int of_file(int fd, char *path) {
    char link[64];
    if (!mode) return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t n = syscall(SYS_readlinkat, AT_FDCWD, link, path, 4095);
    path[n < 0 ? 0 : n] = 0;
    return below(path);
}

/* 1: the call fails; 2: it is torn. A full disk stops what needs room; a read-only one, all that changes something. */
static int fails(int kind) {
    if ((mode == READ) != (kind == READING)) return 0;
    int n = ++calls;
    if (mode == TORN) return n == point ? 2 : 0;
    if (mode != ONCE && mode != FROM && mode != READ) return 0;
    if (mode == FROM ? n < point : n != point) return 0;
    if (number == ENOSPC && kind != WRITE && kind != CREATE && kind != MKDIR) return 0;
    if (number == EROFS && kind == SYNC) return 0;
    errno = number;
    return 1;
}

#define REAL(name) static __typeof__(name) *real; if (!real) real = (__typeof__(name) *)dlsym(RTLD_NEXT, #name)

static int opening(const char *path, int flags) {
    struct stat there;
    int changes = (flags & O_CREAT && stat(path, &there)) || flags & O_TRUNC;
    if (!below(path)) return 0;
    if (number == EROFS && mode == FROM && calls >= point && flags & (O_WRONLY | O_RDWR)) { errno = EROFS; return 1; }
    if (!changes) return 0;
    int what = fails(CREATE);
    if (what == 1) return 1;
    if (what == 2) kill(getpid(), SIGKILL);
    note(CREATE, path, 0, 0, 0, 0);
    if (flags & O_TRUNC) note(TRUNCATE, path, 0, 0, 0, 0);
    return 0;
}

#define OPEN(name) \
    int name(const char *path, int flags, ...) { \
        REAL(name); \
        va_list more; \
        va_start(more, flags); \
        int rights = va_arg(more, int); \
        va_end(more); \
        return opening(path, flags) ? -1 : real(path, flags, rights); \
    }
OPEN(open)
OPEN(open64)

#define OPENAT(name) \
    int name(int at, const char *path, int flags, ...) { \
        REAL(name); \
        va_list more; \
        va_start(more, flags); \
        int rights = va_arg(more, int); \
        va_end(more); \
        return opening(path, flags) ? -1 : real(at, path, flags, rights); \
    }
OPENAT(openat)
OPENAT(openat64)

static ssize_t writing(int fd, const void *data, size_t n, int64_t offset, ssize_t (*done)(int, const void *, size_t, off_t)) {
    char path[4096];
    if (of_file(fd, path)) {
        int what = fails(WRITE);
        if (what == 1) return -1;
        if (what == 2) { done(fd, data, n / 2, offset); kill(getpid(), SIGKILL); }
        note(WRITE, path, 0, offset, data, n);
    }
    return done(fd, data, n, offset);
}

ssize_t write(int fd, const void *data, size_t n);
static ssize_t plain(int fd, const void *data, size_t n, off_t at) { (void)at; REAL(write); return real(fd, data, n); }
static ssize_t placed(int fd, const void *data, size_t n, off_t at) { REAL(pwrite64); return real(fd, data, n, at); }

ssize_t write(int fd, const void *data, size_t n) {
    int64_t at = 0;
    if (mode == LOG) at = fcntl(fd, F_GETFL) & O_APPEND ? lseek(fd, 0, SEEK_END) : lseek(fd, 0, SEEK_CUR);
    return writing(fd, data, n, at, plain);
}
ssize_t pwrite(int fd, const void *data, size_t n, off_t at) { return writing(fd, data, n, at, placed); }
ssize_t pwrite64(int fd, const void *data, size_t n, off_t at) { return writing(fd, data, n, at, placed); }

/* Flushing the folder that holds root makes root itself durable: it is written down, and never fails. */
static void outside(int fd) {
    char path[4096];
    if (mode != LOG || of_file(fd, path)) return;
    size_t n = strlen(path);
    if (n && !strncmp(path, root, n) && root[n] == '/' && !strchr(root + n + 1, '/')) note(SYNC, path, 0, 0, 0, 0);
}

#define ON_FILE(name, kind) \
    int name(int fd) { \
        REAL(name); \
        char path[4096]; \
        outside(fd); \
        if (of_file(fd, path)) { int what = fails(kind); if (what == 1) return -1; if (what == 2) kill(getpid(), SIGKILL); note(kind, path, 0, 0, 0, 0); } \
        return real(fd); \
    }
ON_FILE(fsync, SYNC)
ON_FILE(fdatasync, SYNC)

#define CUT(name) \
    int name(int fd, off_t size) { \
        REAL(name); \
        char path[4096]; \
        if (of_file(fd, path)) { if (fails(TRUNCATE) == 1) return -1; note(TRUNCATE, path, 0, size, 0, 0); } \
        return real(fd, size); \
    }
CUT(ftruncate)
CUT(ftruncate64)

#define ON_PATH(name, kind, ...) \
    if (below(path)) { int what = fails(kind); if (what == 1) return -1; if (what == 2) kill(getpid(), SIGKILL); note(kind, path, 0, 0, 0, 0); } \
    REAL(name); \
    return real(path, ##__VA_ARGS__);

int unlink(const char *path) { ON_PATH(unlink, UNLINK) }
int rmdir(const char *path) { ON_PATH(rmdir, RMDIR) }
int mkdir(const char *path, mode_t rights) { ON_PATH(mkdir, MKDIR, rights) }

int unlinkat(int at, const char *name, int flags) {
    REAL(unlinkat);
    char folder[4096] = "", path[8192];
    if (mode && at != AT_FDCWD) of_file(at, folder);
    snprintf(path, sizeof path, "%s%s%s", folder, *folder ? "/" : "", name);
    if (below(path)) {
        int kind = flags & AT_REMOVEDIR ? RMDIR : UNLINK, what = fails(kind);
        if (what == 1) return -1;
        if (what == 2) kill(getpid(), SIGKILL);
        note(kind, path, 0, 0, 0, 0);
    }
    return real(at, name, flags);
}

int rename(const char *path, const char *other) {
    if (below(path)) {
        int what = fails(RENAME);
        if (what == 1) return -1;
        if (what == 2) kill(getpid(), SIGKILL);
        note(RENAME, path, other, 0, 0, 0);
    }
    REAL(rename);
    return real(path, other);
}

#define READS(name, ...) if (mode == READ && of_file(fd, (char[4096]){0}) && fails(READING)) return -1; REAL(name); return real(fd, data, n, ##__VA_ARGS__);
ssize_t read(int fd, void *data, size_t n) { READS(read) }
ssize_t pread(int fd, void *data, size_t n, off_t at) { READS(pread, at) }
ssize_t pread64(int fd, void *data, size_t n, off64_t at) { READS(pread64, at) }
