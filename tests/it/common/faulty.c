/* Preloaded into a server by `Server::start_faulty`: makes calls fail that it makes of the C library.
 *
 * Connections: what carries a mark fails with EIO, or is answered by a lie; so a test decides which connection breaks, and
 * when, by what it says there. The rest of the machine: files in the directory FAULTS say what is wrong now.
 *
 *   FAULTS/disk    "CALL ERRNO": every CALL (write, sync) on the database's files fails with that number
 *   FAULTS/clock   seconds by which the wall clock is wrong
 *   FAULTS/crumbs  while it is there, connections take and give a few bytes at a time, and every other call is interrupted
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define CRUMB_BYTES 3

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

static const char *fault_path(const char *name, char *path, size_t size)
{
    const char *directory = getenv("FAULTS");
    if (directory == NULL)
        return NULL;
    snprintf(path, size, "%s/%s", directory, name);
    return access(path, F_OK) == 0 ? path : NULL;
}

static int fault_text(const char *name, char *text, int size)
{
    char path[4096];
    int saved = errno, found = 0;
    if (fault_path(name, path, sizeof path) != NULL) {
        FILE *file = fopen(path, "r");
        if (file != NULL) {
            found = fgets(text, size, file) != NULL;
            fclose(file);
        }
    }
    errno = saved;
    return found;
}

static int carries(const void *bytes, ssize_t len, const char *mark)
{
    return len > 0 && memmem(bytes, (size_t)len, mark, strlen(mark)) != NULL;
}

/* True when the connection is to give or take crumbs; every second time the call is interrupted instead. */
static int crumbs(size_t *len, int *interrupted)
{
    static atomic_uint calls;
    char path[4096];
    int saved = errno;
    int on = fault_path("crumbs", path, sizeof path) != NULL;
    errno = saved;
    *interrupted = on && atomic_fetch_add(&calls, 1) % 2 == 0;
    if (on && *len > CRUMB_BYTES)
        *len = CRUMB_BYTES;
    return on;
}

ssize_t recv(int fd, void *bytes, size_t len, int flags)
{
    int interrupted;
    size_t room = len;
    crumbs(&len, &interrupted);
    if (interrupted) {
        errno = EINTR;
        return -1;
    }
    ssize_t got = REAL(recv)(fd, bytes, len, flags);
    if (carries(bytes, got, "fail-to-read")) {
        errno = EIO;
        return -1;
    }
    /* No kernel says that it has read more than there was room for. The worker that believes it panics. */
    if (carries(bytes, got, "lie-about-reading"))
        return (ssize_t)room + 1;
    return got;
}

ssize_t send(int fd, const void *bytes, size_t len, int flags)
{
    int interrupted;
    crumbs(&len, &interrupted);
    if (interrupted) {
        errno = EINTR;
        return -1;
    }
    if (carries(bytes, (ssize_t)len, "fail-to-write")) {
        errno = EIO;
        return -1;
    }
    return REAL(send)(fd, bytes, len, flags);
}

/* True when that call on that fd is to fail; errno says how. */
static int disk_fails(const char *call, int fd)
{
    char text[64], kind[16], link[64], path[4096];
    int number;
    if (!fault_text("disk", text, sizeof text) || sscanf(text, "%15s %d", kind, &number) != 2 || strcmp(kind, call) != 0)
        return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t len = readlink(link, path, sizeof path - 1);
    if (len < 0)
        return 0;
    path[len] = '\0';
    if (strstr(path, "/linger.db") == NULL || strstr(path, "-shm") != NULL)
        return 0;
    errno = number;
    return 1;
}

ssize_t write(int fd, const void *bytes, size_t len)
{
    return disk_fails("write", fd) ? -1 : REAL(write)(fd, bytes, len);
}

ssize_t pwrite(int fd, const void *bytes, size_t len, off_t at)
{
    return disk_fails("write", fd) ? -1 : REAL(pwrite)(fd, bytes, len, at);
}

ssize_t pwrite64(int fd, const void *bytes, size_t len, off64_t at)
{
    return disk_fails("write", fd) ? -1 : REAL(pwrite64)(fd, bytes, len, at);
}

int fsync(int fd)
{
    return disk_fails("sync", fd) ? -1 : REAL(fsync)(fd);
}

int fdatasync(int fd)
{
    return disk_fails("sync", fd) ? -1 : REAL(fdatasync)(fd);
}

int clock_gettime(clockid_t clock, struct timespec *now)
{
    int done = REAL(clock_gettime)(clock, now);
    char text[64];
    if (done == 0 && clock == CLOCK_REALTIME && fault_text("clock", text, sizeof text))
        now->tv_sec += atol(text);
    return done;
}
