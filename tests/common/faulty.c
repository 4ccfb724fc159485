/* Preloaded into a server by `Server::start_faulty`: makes the two calls with which it reads and writes connections fail.
 *
 * What carries a mark fails with EIO, everything else goes to the C library. So a test decides which connection breaks,
 * and when, by what it says there.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <string.h>
#include <sys/socket.h>

typedef ssize_t (*receiver)(int, void *, size_t, int);
typedef ssize_t (*sender)(int, const void *, size_t, int);

static int carries(const void *bytes, ssize_t len, const char *mark)
{
    return len > 0 && memmem(bytes, (size_t)len, mark, strlen(mark)) != NULL;
}

ssize_t recv(int fd, void *bytes, size_t len, int flags)
{
    static receiver real;
    if (real == NULL)
        real = (receiver)dlsym(RTLD_NEXT, "recv");
    ssize_t got = real(fd, bytes, len, flags);
    if (carries(bytes, got, "fail-to-read")) {
        errno = EIO;
        return -1;
    }
    return got;
}

ssize_t send(int fd, const void *bytes, size_t len, int flags)
{
    static sender real;
    if (real == NULL)
        real = (sender)dlsym(RTLD_NEXT, "send");
    if (carries(bytes, (ssize_t)len, "fail-to-write")) {
        errno = EIO;
        return -1;
    }
    return real(fd, bytes, len, flags);
}
