/* A program of its own, without the C library: loads a blob through the device and unloads it, then
 * looks up one return address in it, and prints the location, and on a second line how many bytes of
 * stack the look-up took. What the device logs goes to standard error.
 *
 * usage: program BLOB OFFSET (decimal, from _text)
 */
#include <stddef.h>

struct table {
	_Alignas(16) unsigned char bytes[256];
};

long lineinfo_parse(const unsigned char *blob, size_t blob_size, struct table *table);
size_t lineinfo_lookup(const struct table *table, unsigned long offset, char *text,
		       size_t text_size);

long lineinfo_device(const unsigned char *blob, size_t blob_size);

/* What every kernel has, and the compiler calls. */
void *memcpy(void *to, const void *from, size_t size)
{
	void *start = to;

	__asm__ volatile("rep movsb" : "+D"(to), "+S"(from), "+c"(size) : : "memory");
	return start;
}

void *memmove(void *to, const void *from, size_t size)
{
	unsigned char *down = to;
	const unsigned char *up = from;

	/* Only ever to a lower address. */
	for (size_t at = 0; at < size; at++)
		down[at] = up[at];
	return to;
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

/* Memory for two tables at a time: what is freed last is what was allocated last, or all. */
static _Alignas(4096) unsigned char memory[32 << 20];
static size_t memory_used, memory_live;

void *lineinfo_allocate(size_t size_bytes)
{
	size_t pages = (size_bytes + 4095) & ~(size_t)4095;

	if (pages > sizeof(memory) - memory_used)
		return NULL;
	memory_used += pages;
	memory_live += size_bytes;
	return memory + memory_used - pages;
}

void lineinfo_free(void *pages, size_t size_bytes)
{
	(void)pages;
	memory_live -= size_bytes;
}

unsigned long lineinfo_now_ms(void)
{
	return 0;
}

void lineinfo_log(const char *line, size_t len)
{
	system_call(1 /* write */, 2, (long)line, (long)len);
	system_call(1 /* write */, 2, (long)"\n", 1);
}

static unsigned char blob[8 << 20];
static struct table table;
static char text[160];

/* The look-up runs on this stack, painted before, so that what it wrote to can be counted. */
#define PAINT 0xa5
static _Alignas(16) unsigned char stack[16 << 10];
static unsigned long size, offset, length;

__attribute__((used)) static void on_own_stack(void)
{
	length = lineinfo_lookup(&table, offset, text, sizeof(text) - 32);
}

static size_t stack_used(void)
{
	size_t untouched = 0;

	while (untouched < sizeof(stack) && stack[untouched] == PAINT)
		untouched++;
	return sizeof(stack) - untouched;
}

static void call_on_own_stack(void)
{
	__asm__ volatile("mov %%rsp, %%rbx\n\tmov %0, %%rsp\n\tcall on_own_stack\n\tmov %%rbx, %%rsp"
			 : : "r"(stack + sizeof(stack))
			 : "rax", "rbx", "rcx", "rdx", "rsi", "rdi", "r8", "r9", "r10", "r11",
			   "memory", "cc");
}

static size_t print_number(char *to, size_t number)
{
	size_t digits = 1;

	for (size_t rest = number; rest >= 10; rest /= 10)
		digits++;
	for (size_t at = digits; at; at--, number /= 10)
		to[at - 1] = (char)('0' + number % 10);
	return digits;
}

__attribute__((used)) static void start(long *arguments_start)
{
	char **arguments = (char **)(arguments_start + 1);
	long file, got, failed;

	for (const char *digit = arguments[2]; *digit; digit++)
		offset = offset * 10 + (unsigned long)(*digit - '0');
	file = system_call(2 /* open */, (long)arguments[1], 0, 0);
	while ((got = system_call(0 /* read */, file, (long)blob + (long)size,
				  (long)(sizeof(blob) - size))) > 0)
		size += (unsigned long)got;
	failed = lineinfo_device(blob, size) || memory_live;
	failed = failed || lineinfo_parse(blob, size, &table);
	if (!failed) {
		memset(stack, PAINT, sizeof(stack));
		call_on_own_stack();
		text[length++] = '\n';
		length += print_number(text + length, stack_used());
		text[length++] = '\n';
		system_call(1 /* write */, 1, (long)text, (long)length);
	}
	system_call(60 /* exit */, failed != 0, 0, 0);
}

__asm__(".globl _start\n_start:\n\tmov %rsp, %rdi\n\tand $-16, %rsp\n\tcall start\n");
