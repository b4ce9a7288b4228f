/* What a run took: percentiles of single times, and the line of JSON that is printed in the end. */
#include "load.h"

#include <sys/resource.h>

static float *times;
static size_t times_count, times_room;

void note(double seconds)
{
    if (times_count == times_room) {
        times_room = times_room ? 2 * times_room : 1 << 16;
        times = realloc(times, times_room * sizeof *times);
    }
    times[times_count++] = seconds;
}

static int by_size(const void *a, const void *b)
{
    float x = *(const float *)a, y = *(const float *)b;
    return (x > y) - (x < y);
}

static double percentile(int percent)
{
    return times_count ? times[(times_count - 1) * percent / 100] : 0;
}

void report(uint64_t done, uint64_t broken, double seconds)
{
    struct rusage used;
    getrusage(RUSAGE_SELF, &used);
    qsort(times, times_count, sizeof *times, by_size);
    printf("{\"count\": %llu, \"failed\": %llu, \"seconds\": %.6f, \"cpu\": %.6f, \"p50\": %.7f, \"p99\": %.7f}\n",
           (unsigned long long)done, (unsigned long long)broken, seconds,
           used.ru_utime.tv_sec + used.ru_stime.tv_sec + (used.ru_utime.tv_usec + used.ru_stime.tv_usec) / 1e6,
           percentile(50), percentile(99));
}
