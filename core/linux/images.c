// SPDX-License-Identifier: GPL-2.0 OR MIT
/*
 * The kernel and the modules that are loaded, each with the slot of its table.
 *
 * Modules come and go by the notifier, with lineinfo_lock; look-ups come from any context and read
 * the list under RCU. So a module is not pinned by its table: when it goes, so does the table.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/kallsyms.h>
#include <linux/module.h>
#include <linux/notifier.h>
#include <linux/preempt.h>
#include <linux/rculist.h>
#include <linux/slab.h>
#include <linux/string.h>
#include <linux/version.h>

#include "shim.h"

struct lineinfo_image lineinfo_kernel;

static LIST_HEAD(modules_known);

#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 4, 0)
static void set_text(struct lineinfo_image *image, const struct module *mod)
{
	image->text = (unsigned long)mod->mem[MOD_TEXT].base;
	image->text_size = mod->mem[MOD_TEXT].size;
	image->init = (unsigned long)mod->mem[MOD_INIT_TEXT].base;
	image->init_size = mod->mem[MOD_INIT_TEXT].size;
}

static void set_build_id(struct lineinfo_image *image, const struct module *mod)
{
	lineinfo_find_build_id(mod->mem[MOD_RODATA].base, mod->mem[MOD_RODATA].size,
			       &image->identity.expected);
}

static bool within_data(unsigned long address, const struct module *mod)
{
	return within_module_mem_type(address, mod, MOD_DATA);
}
#else
static void set_text(struct lineinfo_image *image, const struct module *mod)
{
	image->text = (unsigned long)mod->core_layout.base;
	image->text_size = mod->core_layout.text_size;
	image->init = (unsigned long)mod->init_layout.base;
	image->init_size = mod->init_layout.text_size;
}

static void set_build_id(struct lineinfo_image *image, const struct module *mod)
{
	const struct module_layout *layout = &mod->core_layout;

	lineinfo_find_build_id(layout->base + layout->text_size,
			       layout->ro_size - layout->text_size, &image->identity.expected);
}

static bool within_data(unsigned long address, const struct module *mod)
{
	return within_module_core(address, mod);
}
#endif

static bool within(unsigned long address, unsigned long start, unsigned long size)
{
	return address - start < size;
}

/* For any context, with preemption disabled or the lock held; the kernel where it is no module. */
struct lineinfo_image *lineinfo_image_at(unsigned long address)
{
	struct lineinfo_image *image;

	list_for_each_entry_rcu(image, &modules_known, list, true) {
		if (within(address, image->text, image->text_size) ||
		    within(address, image->init, READ_ONCE(image->init_size)))
			return image;
	}
	return &lineinfo_kernel;
}

/* With the lock held. */
struct lineinfo_image *lineinfo_image_named(const char *name, size_t len)
{
	struct lineinfo_image *image;

	if (!len)
		return &lineinfo_kernel;
	list_for_each_entry(image, &modules_known, list) {
		if (strlen(image->identity.name) == len && !memcmp(image->identity.name, name, len))
			return image;
	}
	return NULL;
}

/*
 * The address as the table counts it, which has init text after the text that stays, with a start
 * of its own; 0 if it is not in the table.
 */
static unsigned long table_address(const struct lineinfo_image *image, unsigned long address,
				   unsigned long byte)
{
	unsigned long start;

	if (image == &lineinfo_kernel)
		return address;
	start = lineinfo_slot_init_start(&image->slot);
	if (within(byte, image->text, image->text_size)) {
		/* Stubs that the kernel made room for come after what the table knows. */
		return start && byte - image->text >= start ? 0 : address;
	}
	return start ? image->text + start + (address - image->init) : 0;
}

/* With preemption disabled: the slot for an address, which becomes that of its table; or NULL. */
static const struct lineinfo_slot *find_slot(u32 kind, unsigned long *address)
{
	bool is_return = (kind & ~LINEINFO_ADDRESS_UNRELIABLE) == LINEINFO_ADDRESS_RETURN;
	unsigned long byte = is_return ? *address - 1 : *address;
	const struct lineinfo_image *image = lineinfo_image_at(byte);

	*address = table_address(image, *address, byte);
	return *address ? &image->slot : NULL;
}

/**
 * lineinfo_annotate - appends " (file:line)" of an address to the text of a symbol
 * @buffer: room for KSYM_SYMBOL_LEN bytes
 * @len: length of the text in it
 * @kind: what is known of the address: LINEINFO_ADDRESS_*
 * @address: the address
 * @is_physical: where in the function of the symbol, and not in what is inlined there
 *
 * For any context. What does not fit whole is left out.
 *
 * Return: the new length.
 */
int lineinfo_annotate(char *buffer, int len, u32 kind, unsigned long address, bool is_physical)
{
	const struct lineinfo_slot *slot;
	size_t room, written = 0;

	if (len < 0 || len >= KSYM_SYMBOL_LEN)
		return len;
	room = KSYM_SYMBOL_LEN - len;
	preempt_disable_notrace();
	slot = find_slot(kind, &address);
	if (slot && is_physical)
		written = lineinfo_slot_physical_text(slot, kind, address, buffer + len, room);
	/* A table without inlined functions has one location for an address. */
	if (slot && !written)
		written = lineinfo_slot_text(slot, kind, address, buffer + len, room);
	preempt_enable_notrace();
	if (written + 1 >= room)
		written = 0;
	buffer[len + written] = 0;
	return len + written;
}

/**
 * lineinfo_inlined - writes " name (file:line) [inline]" of a function inlined at an address
 * @text: room for the text
 * @size: how many bytes
 * @kind: what is known of the address: LINEINFO_ADDRESS_*
 * @address: the address
 * @level: 0 is the innermost function
 *
 * For any context. A text that fills its room may be cut.
 *
 * Return: the length of the text, 0 if there is no such function.
 */
size_t lineinfo_inlined(char *text, size_t size, u32 kind, unsigned long address, u32 level)
{
	const struct lineinfo_slot *slot;
	size_t written = 0;

	preempt_disable_notrace();
	slot = find_slot(kind, &address);
	if (slot)
		written = lineinfo_slot_inlined_text(slot, kind, address, level, text, size);
	preempt_enable_notrace();
	return written;
}

static bool reclaim(struct lineinfo_image *image)
{
	if (lineinfo_slot_is_pending(&image->slot))
		lineinfo_device_reclaim(&lineinfo_file_device, &image->slot);
	return lineinfo_slot_is_pending(&image->slot);
}

/* With the lock held; says whether there is more to free. */
bool lineinfo_reclaim(void)
{
	struct lineinfo_image *image;
	bool pending = reclaim(&lineinfo_kernel);

	list_for_each_entry(image, &modules_known, list)
		pending |= reclaim(image);
	return pending;
}

void lineinfo_module_tables(unsigned int *tables, u64 *memory)
{
	struct lineinfo_image *image;
	u64 bytes;

	*tables = 0;
	*memory = 0;
	mutex_lock(&lineinfo_lock);
	list_for_each_entry(image, &modules_known, list) {
		bytes = lineinfo_slot_memory(&image->slot);
		*tables += !!bytes;
		*memory += bytes;
	}
	mutex_unlock(&lineinfo_lock);
}

/* With the lock held: the init text of a module that is live is gone, or soon will be. */
static void free_init(struct lineinfo_image *image)
{
	const char *name = image->identity.name;

	WRITE_ONCE(image->init_size, 0);
	lineinfo_device_free_init(&lineinfo_file_device, name, strlen(name));
}

/* With the lock held. */
static struct lineinfo_image *add(const struct module *mod, gfp_t gfp)
{
	struct lineinfo_image *image;

	image = kzalloc(sizeof(*image), gfp);
	if (!image)
		return NULL;
	lineinfo_slot_init(&image->slot);
	strscpy(image->identity.name, mod->name, sizeof(image->identity.name));
	set_text(image, mod);
	set_build_id(image, mod);
	image->identity.expected.slide = image->text;
	list_add_tail_rcu(&image->list, &modules_known);
	if (mod->state == MODULE_STATE_LIVE)
		free_init(image);
	return image;
}

/* With the lock held: whether a file is to be looked for, which is done once. */
static bool may_ask(struct lineinfo_image *image, struct lineinfo_identity *identity)
{
	bool may = lineinfo_enable && !image->asked;

	image->asked = true;
	*identity = image->identity;
	return may;
}

/* With the lock held. */
static void forget(struct lineinfo_image *image)
{
	list_del_rcu(&image->list);
	synchronize_rcu();
	lineinfo_slot_destroy(&image->slot);
	kfree(image);
}

static int notify(struct notifier_block *nb, unsigned long action, void *data)
{
	const struct module *mod = data;
	struct lineinfo_identity identity;
	struct lineinfo_image *image;
	bool load = false;

	mutex_lock(&lineinfo_lock);
	image = lineinfo_image_named(mod->name, strlen(mod->name));
	switch (action) {
	case MODULE_STATE_COMING:
		if (!image)
			image = add(mod, GFP_KERNEL);
		load = image && may_ask(image, &identity);
		break;
	case MODULE_STATE_LIVE:
		if (image)
			free_init(image);
		break;
	case MODULE_STATE_GOING:
		if (image)
			forget(image);
		break;
	}
	mutex_unlock(&lineinfo_lock);
	if (load)
		lineinfo_load_file(&identity);
	return NOTIFY_OK;
}

static struct notifier_block notifier = {
	.notifier_call = notify,
};

/*
 * The modules that came before this one are in a ring with it, with the head of the list, which is
 * no module: a struct module is in the data of its own module.
 */
static void add_loaded(void)
{
	struct list_head *at;

	mutex_lock(&lineinfo_lock);
	rcu_read_lock_sched();
	list_for_each_rcu(at, &THIS_MODULE->list) {
		const struct module *mod = list_entry(at, struct module, list);

		if (!within_data((unsigned long)mod, mod))
			continue;
		if (mod->state != MODULE_STATE_LIVE && mod->state != MODULE_STATE_COMING)
			continue;
		if (!lineinfo_image_named(mod->name, strlen(mod->name)))
			add(mod, GFP_ATOMIC);
	}
	rcu_read_unlock_sched();
	add(THIS_MODULE, GFP_KERNEL);
	mutex_unlock(&lineinfo_lock);
}

/* Loads the tables of the modules that are there, if there are files with them. */
static void load_all(void)
{
	struct lineinfo_identity identity;
	struct lineinfo_image *image;
	bool load;

	do {
		load = false;
		mutex_lock(&lineinfo_lock);
		list_for_each_entry(image, &modules_known, list) {
			load = may_ask(image, &identity);
			if (load)
				break;
		}
		mutex_unlock(&lineinfo_lock);
		if (load)
			lineinfo_load_file(&identity);
	} while (load);
}

int lineinfo_images_init(void)
{
	/* Those that come from now on are seen, too. */
	int ret = register_module_notifier(&notifier);

	if (ret)
		return ret;
	add_loaded();
	load_all();
	return 0;
}

/* Nobody opens the device any more; look-ups may still come. */
void lineinfo_images_exit(void)
{
	struct lineinfo_image *image, *next;

	unregister_module_notifier(&notifier);
	mutex_lock(&lineinfo_lock);
	list_for_each_entry_safe(image, next, &modules_known, list)
		forget(image);
	mutex_unlock(&lineinfo_lock);
}
