/* A C program for `cargo unik pack`: musl-gcc -static -O2 -pthread main.c -o c-musl */
#include <arpa/inet.h>
#include <errno.h>
#include <ifaddrs.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static long total;

static void *work(void *arg) {
    for (long i = 0; i < 1000; i++) {
        pthread_mutex_lock(&lock);
        total += (long)arg;
        pthread_mutex_unlock(&lock);
    }
    return arg;
}

/* musl asks a netlink socket, and reads its answers with less care than glibc. */
static int on_the_loopback(void) {
    struct ifaddrs *all = NULL;
    int found = 0;
    if (getifaddrs(&all) != 0) return -1;
    for (struct ifaddrs *one = all; one; one = one->ifa_next) {
        struct sockaddr_in *in = (struct sockaddr_in *)one->ifa_addr;
        if (in && in->sin_family == AF_INET && ntohl(in->sin_addr.s_addr) == INADDR_LOOPBACK) found++;
    }
    freeifaddrs(all);
    return found;
}

int main(int argc, char **argv) {
    printf("hello from C, %d arguments\n", argc - 1);
    for (int i = 1; i < argc; i++) printf("argument %d: %s\n", i, argv[i]);

    pthread_t threads[8];
    for (long i = 0; i < 8; i++) pthread_create(&threads[i], NULL, work, (void *)i);
    for (int i = 0; i < 8; i++) pthread_join(threads[i], NULL);
    printf("threads added %ld\n", total);

    char path[] = "/tmp/c-musl-XXXXXX";
    int fd = mkstemp(path);
    dprintf(fd, "%s %d\n", "written", 42);
    struct stat st;
    fstat(fd, &st);
    char text[32] = {0};
    pread(fd, text, sizeof text - 1, 0);
    close(fd);
    unlink(path);
    printf("file has %ld bytes: %s", (long)st.st_size, text);

    struct timespec a, b, wait = {0, 2000000};
    clock_gettime(CLOCK_MONOTONIC, &a);
    nanosleep(&wait, NULL);
    clock_gettime(CLOCK_MONOTONIC, &b);
    printf("slept %d\n", (b.tv_sec - a.tv_sec) * 1000000000L + b.tv_nsec - a.tv_nsec >= 2000000);

    printf("%d addresses on the loopback\n", on_the_loopback());
    printf("no such file: %s\n", fopen("/no/such/file", "r") ? "opened" : strerror(errno));
    fflush(stdout);
    return 7;
}
