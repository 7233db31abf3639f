/*
 * Preloaded into lineinfo by tests/faults.rs: counts the operations that change files, spoils one of
 * them, and records them all.
 *
 * FAULT_AT      the number of the operation that is spoiled, from 0
 * FAULT         how: "error N" (errno N), "short" (half of a write), "signal N" (raised before it);
 *               or "vanish": the first file that is locked loses its name before
 * FAULT_HIT     a file in which the name of that operation is written
 * FAULT_RECORD  a file in which every operation is written, as parse() in tests/faults.rs reads it
 *
 * Files are told apart by inode. Standard streams are left alone. Not for several threads at once:
 * lineinfo writes its files from one.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

static long count;

/* By system calls, which are not counted. */
static void put(const char *variable, const void *bytes, size_t len)
{
	const char *path = getenv(variable);
	int fd;

	if (!path)
		return;
	fd = syscall(SYS_openat, AT_FDCWD, path, O_WRONLY | O_CREAT | O_APPEND, 0600);
	if (fd < 0 || syscall(SYS_write, fd, bytes, len) != (long)len)
		abort();
	syscall(SYS_close, fd);
}

static void record(const char *format, ...)
{
	char line[8192];
	va_list args;
	int len;

	va_start(args, format);
	len = vsnprintf(line, sizeof(line), format, args);
	va_end(args);
	put("FAULT_RECORD", line, len);
}

static unsigned long inode(int fd)
{
	struct stat status;

	return fstat(fd, &status) ? 0 : status.st_ino;
}

static int is_file(int fd)
{
	struct stat status;

	return fd > 2 && !fstat(fd, &status) && S_ISREG(status.st_mode);
}

static int is_directory(int fd)
{
	struct stat status;

	return !fstat(fd, &status) && S_ISDIR(status.st_mode);
}

enum verdict { GO_ON, FAIL, SHORT };

/* Counts an operation, and says what becomes of it. */
static enum verdict verdict(const char *name)
{
	const char *at = getenv("FAULT_AT"), *fault = getenv("FAULT");

	if (!at || !fault || !strcmp(fault, "vanish") || count++ != atol(at))
		return GO_ON;
	put("FAULT_HIT", name, strlen(name));
	if (!strncmp(fault, "error ", 6)) {
		errno = atoi(fault + 6);
		return FAIL;
	}
	if (!strncmp(fault, "signal ", 7)) {
		raise(atoi(fault + 7));
		return GO_ON;
	}
	return SHORT;
}

static int create(const char *path, int flags, mode_t mode)
{
	int fd;

	if ((flags & O_CREAT) && verdict("create") == FAIL)
		return -1;
	fd = REAL(open)(path, flags, mode);
	if (fd >= 0 && (flags & O_CREAT))
		record("create %lu %s\n", inode(fd), path);
	return fd;
}

int open(const char *path, int flags, ...)
{
	va_list args;
	mode_t mode;

	va_start(args, flags);
	mode = flags & O_CREAT ? va_arg(args, mode_t) : 0;
	va_end(args);
	return create(path, flags, mode);
}

int open64(const char *path, int flags, ...)
{
	va_list args;
	mode_t mode;

	va_start(args, flags);
	mode = flags & O_CREAT ? va_arg(args, mode_t) : 0;
	va_end(args);
	return create(path, flags, mode);
}

ssize_t write(int fd, const void *bytes, size_t len)
{
	if (is_file(fd)) {
		off_t at = lseek(fd, 0, SEEK_CUR);
		ssize_t written;

		switch (verdict("write")) {
		case FAIL:
			return -1;
		case SHORT:
			len = (len + 1) / 2;
			break;
		case GO_ON:
			break;
		}
		written = REAL(write)(fd, bytes, len);
		if (written > 0) {
			record("write %lu %lld %zd\n", inode(fd), (long long)at, written);
			put("FAULT_RECORD", bytes, written);
		}
		return written;
	}
	return REAL(write)(fd, bytes, len);
}

ssize_t pwrite64(int fd, const void *bytes, size_t len, off64_t at)
{
	ssize_t written;

	if (is_file(fd) && verdict("pwrite") == FAIL)
		return -1;
	written = REAL(pwrite64)(fd, bytes, len, at);
	if (written > 0) {
		record("write %lu %lld %zd\n", inode(fd), (long long)at, written);
		put("FAULT_RECORD", bytes, written);
	}
	return written;
}

/* A record needs the bytes: then the caller falls back to write. */
ssize_t copy_file_range(int from, off64_t *from_at, int to, off64_t *to_at, size_t len,
			unsigned int flags)
{
	if (getenv("FAULT_RECORD")) {
		errno = ENOSYS;
		return -1;
	}
	switch (verdict("copy_file_range")) {
	case FAIL:
		return -1;
	case SHORT:
		len = len > 1000 ? 1000 : len;
		break;
	case GO_ON:
		break;
	}
	return REAL(copy_file_range)(from, from_at, to, to_at, len, flags);
}

ssize_t sendfile64(int to, int from, off64_t *at, size_t len)
{
	(void)to;
	(void)from;
	(void)at;
	(void)len;
	errno = ENOSYS;
	return -1;
}

static int truncate_to(int fd, off64_t len)
{
	int result;

	if (verdict("ftruncate") == FAIL)
		return -1;
	result = REAL(ftruncate64)(fd, len);
	if (!result)
		record("truncate %lu %lld\n", inode(fd), (long long)len);
	return result;
}

int ftruncate(int fd, off_t len)
{
	return truncate_to(fd, len);
}

int ftruncate64(int fd, off64_t len)
{
	return truncate_to(fd, len);
}

int fsync(int fd)
{
	int result;

	if (verdict(is_directory(fd) ? "fsync of the directory" : "fsync") == FAIL)
		return -1;
	result = REAL(fsync)(fd);
	if (!result)
		record("%s %lu\n", is_directory(fd) ? "fsync-directory" : "fsync", inode(fd));
	return result;
}

int rename(const char *from, const char *to)
{
	int result;

	if (verdict("rename") == FAIL)
		return -1;
	result = REAL(rename)(from, to);
	if (!result)
		record("rename %s %s\n", from, to);
	return result;
}

int unlink(const char *path)
{
	int result = REAL(unlink)(path);

	if (!result)
		record("unlink %s\n", path);
	return result;
}

/* Another run may take a temporary file for a leftover before it is locked. */
int flock(int fd, int operation)
{
	static int done;
	const char *fault = getenv("FAULT");

	if (fault && !strcmp(fault, "vanish") && !done++) {
		char link[64], path[4096];
		ssize_t len;

		snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
		len = readlink(link, path, sizeof(path) - 1);
		if (len < 0)
			abort();
		path[len] = 0;
		if (REAL(unlink)(path))
			abort();
		put("FAULT_HIT", "flock", 5);
	}
	return REAL(flock)(fd, operation);
}

int fchmod(int fd, mode_t mode)
{
	return verdict("fchmod") == FAIL ? -1 : REAL(fchmod)(fd, mode);
}

int fchown(int fd, uid_t user, gid_t group)
{
	return verdict("fchown") == FAIL ? -1 : REAL(fchown)(fd, user, group);
}
