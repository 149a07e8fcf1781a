// SPDX-License-Identifier: Apache-2.0
// A library that chaos preloads into temper's processes (tests/e2e/chaos.py): what it does to them, they can't tell from
// what a network or an administrator does.
//
// TEMPER_RELAY=PORT: what workers and ranks connect to on the loopback interface, they reach through the relay at that
//   port (tests/servers/relay.py). A connection begins with who connects ('W' or 'R') and the port that it is for.
// TEMPER_NOT_RELAYED=PORT: but not what is at that port.
// TEMPER_CLOCK_SHIFT=FILE: eight bytes, nanoseconds by which the wall clock is off. It may be changed at any time.
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static int (*real_connect)(int, const struct sockaddr*, socklen_t);
static int (*real_clock_gettime)(clockid_t, struct timespec*);
static uint16_t relay_port;
static uint16_t other_port;  // not relayed
static char who;
static const volatile int64_t* shift;

__attribute__((constructor)) static void start(void) {
  real_connect = (int (*)(int, const struct sockaddr*, socklen_t))dlsym(RTLD_NEXT, "connect");
  real_clock_gettime = (int (*)(clockid_t, struct timespec*))dlsym(RTLD_NEXT, "clock_gettime");
  const char* const name = program_invocation_short_name;
  const char* const port = getenv("TEMPER_RELAY");
  if (port != NULL && strcmp(name, "temper-worker") == 0) who = 'W';
  if (port != NULL && strcmp(name, "temper-rank") == 0) who = 'R';
  if (who != 0) relay_port = (uint16_t)atoi(port);
  const char* const other = getenv("TEMPER_NOT_RELAYED");
  if (other != NULL) other_port = (uint16_t)atoi(other);
  const char* const file = getenv("TEMPER_CLOCK_SHIFT");
  const int fd = file != NULL ? open(file, O_RDONLY | O_CLOEXEC) : -1;
  if (fd < 0) return;
  void* const mapped = mmap(NULL, sizeof *shift, PROT_READ, MAP_SHARED, fd, 0);
  if (mapped != MAP_FAILED) shift = mapped;
  close(fd);
}

// Where the port of a loopback address is, of either family; null for any other address.
static in_port_t* loopback_port(struct sockaddr_storage* address) {
  if (address->ss_family == AF_INET) {
    struct sockaddr_in* const v4 = (struct sockaddr_in*)address;
    return (ntohl(v4->sin_addr.s_addr) >> 24) == 127 ? &v4->sin_port : NULL;
  }
  struct sockaddr_in6* const v6 = (struct sockaddr_in6*)address;
  const int mapped = address->ss_family == AF_INET6 && IN6_IS_ADDR_V4MAPPED(&v6->sin6_addr);
  return mapped && v6->sin6_addr.s6_addr[12] == 127 ? &v6->sin6_port : NULL;
}

int connect(int fd, const struct sockaddr* to, socklen_t size) {
  struct sockaddr_storage address = {0};
  if (relay_port == 0 || size > sizeof address) return real_connect(fd, to, size);
  memcpy(&address, to, size);
  in_port_t* const port = loopback_port(&address);
  if (port == NULL || *port == htons(other_port)) return real_connect(fd, to, size);
  char header[3] = {who};
  memcpy(header + 1, port, 2);
  *port = htons(relay_port);
  // The relay is near: it is waited for, whatever the socket is.
  const int flags = fcntl(fd, F_GETFL);
  fcntl(fd, F_SETFL, flags & ~O_NONBLOCK);
  int result = real_connect(fd, (const struct sockaddr*)&address, size);
  if (result == 0 && send(fd, header, sizeof header, MSG_NOSIGNAL) != sizeof header) {
    errno = ECONNREFUSED;
    result = -1;
  }
  const int error = errno;
  fcntl(fd, F_SETFL, flags);
  errno = error;
  return result;
}

int clock_gettime(clockid_t clock, struct timespec* time) {
  if (real_clock_gettime == NULL) real_clock_gettime = (int (*)(clockid_t, struct timespec*))dlsym(RTLD_NEXT, "clock_gettime");
  const int result = real_clock_gettime(clock, time);
  const int64_t off = shift != NULL ? *shift : 0;
  if (result != 0 || off == 0 || (clock != CLOCK_REALTIME && clock != CLOCK_REALTIME_COARSE)) return result;
  const int64_t second = 1000000000;
  int64_t nanoseconds = time->tv_nsec + off % second;
  time->tv_sec += off / second + (nanoseconds < 0 ? -1 : nanoseconds >= second ? 1 : 0);
  time->tv_nsec = (nanoseconds + second) % second;
  return result;
}

int gettimeofday(struct timeval* time, void* zone) {
  (void)zone;
  struct timespec now;
  if (clock_gettime(CLOCK_REALTIME, &now) != 0) return -1;
  time->tv_sec = now.tv_sec;
  time->tv_usec = now.tv_nsec / 1000;
  return 0;
}

time_t time(time_t* into) {
  struct timespec now;
  clock_gettime(CLOCK_REALTIME, &now);
  if (into != NULL) *into = now.tv_sec;
  return now.tv_sec;
}
