// SPDX-License-Identifier: GPL-2.0 OR MIT
/*
 * What core asks of a kernel (lineinfo.h): memory, a clock, a log, and whose slots there are.
 */
#include <linux/delay.h>
#include <linux/ktime.h>
#include <linux/mm.h>
#include <linux/printk.h>
#include <linux/slab.h>
#include <linux/string.h>
#include <linux/vmalloc.h>

#include "shim.h"

/* How long a writer waits for the readers of an old table. */
#define READERS_TIMEOUT_MS	1000

void *lineinfo_port_allocate(size_t size)
{
	return vzalloc(size);
}

/* No area of vmalloc becomes smaller, so what is left moves to a new one. */
void *lineinfo_port_truncate(void *memory, size_t old_size, size_t size)
{
	void *smaller;

	if (PAGE_ALIGN(size) >= PAGE_ALIGN(old_size))
		return NULL;
	smaller = vmalloc(size);
	if (!smaller)
		return NULL;
	memcpy(smaller, memory, size);
	vfree(memory);
	return smaller;
}

/* The functions that make memory read-only are not for modules: set_memory_ro is not exported. */
int lineinfo_port_seal(void *memory, size_t size)
{
	return 0;
}

void lineinfo_port_free(void *memory, size_t size)
{
	vfree(memory);
}

void *lineinfo_port_allocate_object(size_t size)
{
	return kmalloc(size, GFP_KERNEL);
}

void lineinfo_port_free_object(void *object, size_t size)
{
	kfree(object);
}

u64 lineinfo_port_now_ms(void)
{
	return ktime_to_ms(ktime_get());
}

void lineinfo_port_log(u32 level, const char *line, size_t len)
{
	/* The line says whose it is. */
	if (level <= LINEINFO_LEVEL_ERROR)
		pr_err("%.*s\n", (int)len, line);
	else if (level == LINEINFO_LEVEL_WARNING)
		pr_warn("%.*s\n", (int)len, line);
	else
		pr_info("%.*s\n", (int)len, line);
}

/* Linux has no Ed25519 for its own use. */
int lineinfo_port_verify(const u8 *key, const u8 *signature,
			 const struct lineinfo_part *parts, size_t count)
{
	return 0;
}

int lineinfo_port_keep_waiting(u64 waited_ms)
{
	usleep_range(100, 200);
	return waited_ms < READERS_TIMEOUT_MS;
}

/*
 * Slots change under lineinfo_lock only, which whoever comes here holds: they stay without a pin.
 */
const struct lineinfo_slot *lineinfo_port_slot_get(const char *name, size_t len,
						   struct lineinfo_expected *expected)
{
	struct lineinfo_image *image = lineinfo_image_named(name, len);

	if (!image)
		return NULL;
	*expected = image->identity.expected;
	return &image->slot;
}

const struct lineinfo_slot *lineinfo_port_slot_get_at(u64 address)
{
	struct lineinfo_image *image = lineinfo_image_at(address);

	return &image->slot;
}

void lineinfo_port_slot_put(const struct lineinfo_slot *slot)
{
}

/* For tables at the end of a boot image, which is not there for a module to read. */
int lineinfo_port_read(void *file, u64 offset, void *to, size_t size)
{
	return -EOPNOTSUPP;
}
