/*
 * A module for the simulated kernel:
 *
 *   cc -g -O2 -fno-omit-frame-pointer -shared -fPIC -Wl,--build-id=sha1 -o xor.ko xor.c
 */

/* What the kernel exports to modules. */
struct kernel {
	void (*printk)(const char *text);
	void (*dump_stack)(void);
};

static const struct kernel *kernel;
static volatile unsigned char blocks[2][4096];

static void __attribute__((noinline)) do_xor(volatile unsigned char *to,
					     const volatile unsigned char *from)
{
	for (unsigned int i = 0; i < sizeof(blocks[0]); i++)
		to[i] ^= from[i];
}

static void __attribute__((noinline)) xor_blocks(int trace)
{
	do_xor(blocks[0], blocks[1]);
	if (trace)
		kernel->dump_stack();
	do_xor(blocks[1], blocks[0]);
}

/* Called by CPUs under load, and with trace by sysrq x. */
void module_work(int trace)
{
	xor_blocks(trace);
	blocks[0][0]++;
}

int init_module(const struct kernel *exports)
{
	kernel = exports;
	kernel->printk("xor: measuring software checksum speed");
	return 0;
}

void cleanup_module(void)
{
	kernel->printk("xor: unloaded");
}
