/* Threads, a lock, a signal handler, cancellation, time; prints two lines.
   musl cancels only where the interrupted address is its own system call, which a handler elsewhere is not: left out there. */
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static int count;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static volatile int hit;

static void *add(void *arg) {
    for (int i = 0; i < 10000; i++) {
        pthread_mutex_lock(&lock);
        count++;
        pthread_mutex_unlock(&lock);
    }
    return arg;
}

static void *block(void *arg) {
    char byte;
    read(*(int *)arg, &byte, 1);
    return arg;
}

static void on_signal(int number) { hit = number; }

int main(void) {
    pthread_t threads[4], blocked;
    for (int i = 0; i < 4; i++) pthread_create(threads + i, 0, add, 0);
    for (int i = 0; i < 4; i++) pthread_join(threads[i], 0);

    signal(SIGUSR1, on_signal);
    raise(SIGUSR1);

    int ends[2];
    void *result = PTHREAD_CANCELED;
    if (pipe(ends)) return 1;
#ifdef __GLIBC__
    pthread_create(&blocked, 0, block, ends);
    usleep(20000);
    pthread_cancel(blocked);
    pthread_join(blocked, &result);
#endif

    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    errno = 0;
    close(-1);
    char line[200];
    snprintf(line, sizeof line, "%d %d %d %d %.3f %s", count, hit, result == PTHREAD_CANCELED, now.tv_sec > 0, 1.0 / 3, strerror(errno));
    puts(line);
    fflush(stdout);
    return write(1, "direct\n", 7);
}
