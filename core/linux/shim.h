/* SPDX-License-Identifier: GPL-2.0 OR MIT */
/*
 * What the files of the module share.
 */
#ifndef LINEINFO_SHIM_H
#define LINEINFO_SHIM_H

#include <linux/list.h>
#include <linux/module.h>
#include <linux/mutex.h>
#include <linux/types.h>

#include "lineinfo.h"

/* Which build of what an image is. */
struct lineinfo_identity {
	/* Empty for the kernel. */
	char name[LINEINFO_MODULE_NAME_SIZE];
	struct lineinfo_expected expected;
};

/* The kernel, or a module that is loaded: its slot, and where its text is. */
struct lineinfo_image {
	struct list_head list;
	struct lineinfo_identity identity;
	struct lineinfo_slot slot;
	unsigned long text, text_size;
	unsigned long init, init_size;
	/* A file with its table was looked for. */
	bool asked;
};

/* Taken for every call of the library that takes a device. */
extern struct mutex lineinfo_lock;

/* Of users, and of the module itself, which loads what it finds in files. */
extern struct lineinfo_device lineinfo_user_device, lineinfo_file_device;

/* main.c */
extern bool lineinfo_enable, lineinfo_late, lineinfo_inlines;
extern unsigned long lineinfo_max;

void lineinfo_reclaim_later(void);

/* identity.c */
int lineinfo_identify_kernel(struct lineinfo_expected *expected);
void lineinfo_find_build_id(const void *from, size_t size,
			    struct lineinfo_expected *expected);

/* images.c */
extern struct lineinfo_image lineinfo_kernel;

struct lineinfo_image *lineinfo_image_named(const char *name, size_t len);
struct lineinfo_image *lineinfo_image_at(unsigned long address);
int lineinfo_annotate(char *buffer, int len, u32 kind, unsigned long address, bool is_physical);
size_t lineinfo_inlined(char *text, size_t size, u32 kind, unsigned long address, u32 level);
bool lineinfo_reclaim(void);
void lineinfo_module_tables(unsigned int *tables, u64 *memory);
int lineinfo_images_init(void);
void lineinfo_images_exit(void);

/* files.c */
void lineinfo_load_file(const struct lineinfo_identity *identity);

/* hooks.c */
int lineinfo_hooks_init(bool kprobes);
void lineinfo_hooks_exit(void);

/* device.c */
int lineinfo_device_register(void);
void lineinfo_device_unregister(void);

/* sysfs.c */
int lineinfo_sysfs_init(void);
void lineinfo_sysfs_exit(void);

#endif
