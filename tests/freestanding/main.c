/* A program of its own, without the C library: looks up one return address in a blob.
 *
 * usage: program BLOB OFFSET (decimal, from _text)
 */
#include <stddef.h>

long lineinfo_lookup(const unsigned char *blob, size_t blob_size, unsigned long offset,
		     char *text, size_t text_size);

/* What every kernel has, and the compiler calls. */
void *memcpy(void *to, const void *from, size_t size)
{
	void *start = to;

	__asm__ volatile("rep movsb" : "+D"(to), "+S"(from), "+c"(size) : : "memory");
	return start;
}

void *memset(void *to, int value, size_t size)
{
	void *start = to;

	__asm__ volatile("rep stosb" : "+D"(to), "+c"(size) : "a"(value) : "memory");
	return start;
}

int memcmp(const void *one, const void *other, size_t size)
{
	const unsigned char *a = one, *b = other;

	for (; size; size--, a++, b++)
		if (*a != *b)
			return *a - *b;
	return 0;
}

static long system_call(long number, long a, long b, long c)
{
	long result;

	__asm__ volatile("syscall" : "=a"(result) : "a"(number), "D"(a), "S"(b), "d"(c)
			 : "rcx", "r11", "memory");
	return result;
}

static unsigned char blob[1 << 20];
static char text[128];

__attribute__((used)) static void start(long *stack)
{
	char **arguments = (char **)(stack + 1);
	unsigned long offset = 0;
	long file, size, length;

	for (const char *digit = arguments[2]; *digit; digit++)
		offset = offset * 10 + (unsigned long)(*digit - '0');
	file = system_call(2 /* open */, (long)arguments[1], 0, 0);
	size = system_call(0 /* read */, file, (long)blob, sizeof(blob));
	length = lineinfo_lookup(blob, (size_t)size, offset, text, sizeof(text) - 1);
	if (length >= 0) {
		text[length] = '\n';
		system_call(1 /* write */, 1, (long)text, length + 1);
	}
	system_call(60 /* exit */, length < 0, 0, 0);
}

__asm__(".globl _start\n_start:\n\tmov %rsp, %rdi\n\tand $-16, %rsp\n\tcall start\n");
