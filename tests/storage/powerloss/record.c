/* Records what a process does to the files below a folder, in order.  Loaded with LD_PRELOAD by record.py.

   LM_RECORD: file the record goes to.  LM_ROOT: the folder.  LM_ACKS: a file whose writes are recorded as acknowledgements.

   One entry: "KIND INODE OFFSET LENGTH PATH-LENGTH OTHER-LENGTH\n", the path, the other path, LENGTH octets.
   C made (file)  M made (folder)  W written  D written through O_DSYNC or O_SYNC  T cut to OFFSET  S, E a flush begins, has ended
   R renamed  L linked  U unlinked  A acknowledged.  An entry is written while no other call of these can happen, flushes excepted:
   they overlap with writes, which is why they have a beginning and an end. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static int record = -1;
static const char *root, *acks;

__attribute__((constructor)) static void begin(void) {
    root = getenv("LM_ROOT");
    acks = getenv("LM_ACKS");
    const char *name = getenv("LM_RECORD");
    if (root && acks && name)
        record = syscall(SYS_openat, AT_FDCWD, name, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
}

static void entry(char kind, ino_t ino, off_t offset, size_t length, const char *path, const char *other, const void *data) {
    char head[160];
    int n = snprintf(head, sizeof head, "%c %lu %ld %zu %zu %zu\n", kind, (unsigned long)ino, (long)offset, length, strlen(path),
                     strlen(other));
    struct iovec parts[4] = {{head, n}, {(void *)path, strlen(path)}, {(void *)other, strlen(other)}, {(void *)data, length}};
    size_t total = n + parts[1].iov_len + parts[2].iov_len + length;
    if ((size_t)syscall(SYS_writev, record, parts, 4) != total)
        abort();
}

static int below(const char *path) {
    size_t n = strlen(root);
    return record >= 0 && !strncmp(path, root, n) && (path[n] == '/' || !path[n]);
}

static int path_of(int fd, char *to) {
    char name[64];
    snprintf(name, sizeof name, "/proc/self/fd/%d", fd);
    ssize_t n = readlink(name, to, PATH_MAX - 1);
    if (n < 0)
        return 0;
    to[n] = 0;
    return 1;
}

static void full(int at, const char *path, char *to) {
    if (path[0] == '/')
        snprintf(to, PATH_MAX, "%s", path);
    else {
        char folder[PATH_MAX];
        if (at == AT_FDCWD ? !getcwd(folder, sizeof folder) : !path_of(at, folder))
            folder[0] = 0;
        snprintf(to, PATH_MAX, "%.2000s/%.2000s", folder, path);
    }
}

static ino_t inode(int fd) {
    struct stat st;
    return fstat(fd, &st) ? 0 : st.st_ino;
}

#define LOCKED(...) do { int e_; pthread_mutex_lock(&lock); __VA_ARGS__; e_ = errno; pthread_mutex_unlock(&lock); errno = e_; } while (0)

static int opened(int at, const char *name, int flags, mode_t mode) {
    char path[PATH_MAX];
    int fd;
    if (record < 0 || !(flags & (O_CREAT | O_TRUNC)) || (flags & O_TMPFILE) == O_TMPFILE)
        return syscall(SYS_openat, at, name, flags, mode);
    full(at, name, path);
    LOCKED(
        struct stat st; int was = !stat(path, &st);
        fd = syscall(SYS_openat, at, name, flags, mode);
        if (fd >= 0 && below(path)) {
            if (!was) entry('C', inode(fd), 0, 0, path, "", "");
            else if (flags & O_TRUNC) entry('T', inode(fd), 0, 0, path, "", "");
        });
    return fd;
}
#define MODE mode_t mode = 0; if (flags & O_CREAT) { va_list a; va_start(a, flags); mode = va_arg(a, mode_t); va_end(a); }
int open(const char *name, int flags, ...) { MODE return opened(AT_FDCWD, name, flags, mode); }
int open64(const char *name, int flags, ...) { MODE return opened(AT_FDCWD, name, flags | O_LARGEFILE, mode); }
int openat(int at, const char *name, int flags, ...) { MODE return opened(at, name, flags, mode); }
int openat64(int at, const char *name, int flags, ...) { MODE return opened(at, name, flags | O_LARGEFILE, mode); }

static void wrote(int fd, const struct iovec *parts, int count, off_t at, ssize_t done) {
    char path[PATH_MAX];
    if (done <= 0 || !path_of(fd, path))
        return;
    int is_ack = !strcmp(path, acks);
    if (!is_ack && !below(path))
        return;
    char *data = malloc(done), *to = data;
    ssize_t left = done;
    for (int n = 0; n < count && left; n++) {
        size_t some = parts[n].iov_len < (size_t)left ? parts[n].iov_len : (size_t)left;
        memcpy(to, parts[n].iov_base, some);
        to += some;
        left -= some;
    }
    entry(is_ack ? 'A' : fcntl(fd, F_GETFL) & O_DSYNC ? 'D' : 'W', inode(fd), at, done, path, "", data);
    free(data);
}
static off_t place(int fd) {
    struct stat st;
    return fcntl(fd, F_GETFL) & O_APPEND && !fstat(fd, &st) ? st.st_size : lseek(fd, 0, SEEK_CUR);
}
static ssize_t streamed(int fd, const struct iovec *parts, int count) {
    ssize_t done;
    struct stat st;
    if (record < 0 || fd == record || fstat(fd, &st) || !S_ISREG(st.st_mode))
        return syscall(SYS_writev, fd, parts, count);
    LOCKED(off_t at = place(fd); done = syscall(SYS_writev, fd, parts, count); wrote(fd, parts, count, at, done));
    return done;
}
static ssize_t placed(int fd, const struct iovec *parts, int count, off_t at) {
    ssize_t done;
    LOCKED(done = syscall(SYS_pwritev, fd, parts, count, at, 0L); if (record >= 0) wrote(fd, parts, count, at, done));
    return done;
}
ssize_t write(int fd, const void *data, size_t n) { struct iovec one = {(void *)data, n}; return streamed(fd, &one, 1); }
ssize_t writev(int fd, const struct iovec *parts, int count) { return streamed(fd, parts, count); }
ssize_t pwrite(int fd, const void *data, size_t n, off_t at) { struct iovec one = {(void *)data, n}; return placed(fd, &one, 1, at); }
ssize_t pwrite64(int fd, const void *data, size_t n, off64_t at) { struct iovec one = {(void *)data, n}; return placed(fd, &one, 1, at); }
ssize_t pwritev(int fd, const struct iovec *parts, int count, off_t at) { return placed(fd, parts, count, at); }
ssize_t pwritev64(int fd, const struct iovec *parts, int count, off64_t at) { return placed(fd, parts, count, at); }
static ssize_t placed2(int fd, const struct iovec *parts, int count, off_t at, int flags) {
    ssize_t done;
    LOCKED(done = syscall(SYS_pwritev2, fd, parts, count, at, 0L, flags); if (record >= 0) wrote(fd, parts, count, at, done));
    return done;
}
ssize_t pwritev2(int fd, const struct iovec *parts, int count, off_t at, int flags) { return placed2(fd, parts, count, at, flags); }
ssize_t pwritev64v2(int fd, const struct iovec *parts, int count, off64_t at, int flags) { return placed2(fd, parts, count, at, flags); }

static int cut(int fd, off_t size) {
    char path[PATH_MAX];
    int failed;
    LOCKED(failed = syscall(SYS_ftruncate, fd, size);
           if (!failed && path_of(fd, path) && below(path)) entry('T', inode(fd), size, 0, path, "", ""));
    return failed;
}
int ftruncate(int fd, off_t size) { return cut(fd, size); }
int ftruncate64(int fd, off64_t size) { return cut(fd, size); }

static int flushed(int fd, long call) {
    char path[PATH_MAX];
    int is_ours = path_of(fd, path) && below(path);
    if (is_ours)
        LOCKED(entry('S', inode(fd), 0, 0, path, "", ""));
    int failed = syscall(call, fd);
    if (is_ours && !failed)
        LOCKED(entry('E', inode(fd), 0, 0, path, "", ""));
    return failed;
}
int fsync(int fd) { return flushed(fd, SYS_fsync); }
int fdatasync(int fd) { return flushed(fd, SYS_fdatasync); }

static int moved(int at, const char *old, int to, const char *new, unsigned flags) {
    char from[PATH_MAX], into[PATH_MAX];
    int failed;
    full(at, old, from);
    full(to, new, into);
    LOCKED(failed = syscall(SYS_renameat2, at, old, to, new, flags);
           if (!failed && (below(from) || below(into))) entry('R', 0, 0, 0, from, into, ""));
    return failed;
}
int rename(const char *old, const char *new) { return moved(AT_FDCWD, old, AT_FDCWD, new, 0); }
int renameat(int at, const char *old, int to, const char *new) { return moved(at, old, to, new, 0); }

static int linked(int at, const char *old, int to, const char *new, int flags) {
    char from[PATH_MAX], into[PATH_MAX];
    int failed;
    full(at, old, from);
    full(to, new, into);
    LOCKED(failed = syscall(SYS_linkat, at, old, to, new, flags); if (!failed && below(into)) entry('L', 0, 0, 0, from, into, ""));
    return failed;
}
int link(const char *old, const char *new) { return linked(AT_FDCWD, old, AT_FDCWD, new, 0); }
int linkat(int at, const char *old, int to, const char *new, int flags) { return linked(at, old, to, new, flags); }

static int gone(int at, const char *name, int flags) {
    char path[PATH_MAX];
    int failed;
    full(at, name, path);
    LOCKED(failed = syscall(SYS_unlinkat, at, name, flags); if (!failed && below(path)) entry('U', 0, 0, 0, path, "", ""));
    return failed;
}
int unlink(const char *name) { return gone(AT_FDCWD, name, 0); }
int unlinkat(int at, const char *name, int flags) { return gone(at, name, flags); }
int rmdir(const char *name) { return gone(AT_FDCWD, name, AT_REMOVEDIR); }

static int made(int at, const char *name, mode_t mode) {
    char path[PATH_MAX];
    int failed;
    struct stat st;
    full(at, name, path);
    LOCKED(failed = syscall(SYS_mkdirat, at, name, mode);
           if (!failed && below(path)) entry('M', stat(path, &st) ? 0 : st.st_ino, 0, 0, path, "", ""));
    return failed;
}
int mkdir(const char *name, mode_t mode) { return made(AT_FDCWD, name, mode); }
int mkdirat(int at, const char *name, mode_t mode) { return made(at, name, mode); }
