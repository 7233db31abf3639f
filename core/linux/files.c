// SPDX-License-Identifier: GPL-2.0 OR MIT
/*
 * Tables in files, which are found by the build-id of what they describe.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/kernel.h>
#include <linux/kernel_read_file.h>
#include <linux/slab.h>
#include <linux/vmalloc.h>

#include "shim.h"

#define DIRECTORY	"/lib/firmware/lineinfo"

static int load(const struct lineinfo_identity *identity, const void *blob, size_t size)
{
	const struct lineinfo_caller caller = { .rights = LINEINFO_CALLER_MAY_LOAD };
	struct lineinfo_target target = {};
	struct lineinfo_file file;
	int ret;

	BUILD_BUG_ON(sizeof(target.name) != sizeof(identity->name));
	memcpy(target.name, identity->name, sizeof(target.name));
	ret = lineinfo_device_open(&lineinfo_file_device, &caller, 1, &file);
	if (ret)
		return ret;
	/* The module may have gone meanwhile. */
	ret = lineinfo_device_ioctl(&lineinfo_file_device, &file, LINEINFO_IOC_TARGET,
				    (u8 *)&target, sizeof(target));
	if (!ret)
		ret = lineinfo_device_write(&lineinfo_file_device, &file, blob, size);
	if (!ret)
		ret = lineinfo_device_ioctl(&lineinfo_file_device, &file, LINEINFO_IOC_COMMIT,
					    NULL, 0);
	lineinfo_device_close(&lineinfo_file_device, &file);
	return ret;
}

/**
 * lineinfo_load_file - loads the table of an image, if there is a file with it
 * @identity: a copy of that of the image, which may go while the file is read
 *
 * What is wrong with a table is in the log, and in the status of the image.
 */
void lineinfo_load_file(const struct lineinfo_identity *identity)
{
	const struct lineinfo_expected *expected = &identity->expected;
	void *blob = NULL;
	ssize_t size;
	char *path;

	if (!expected->build_id_len)
		return;
	path = kasprintf(GFP_KERNEL, DIRECTORY "/%*phN.lineinfo", expected->build_id_len,
			 expected->build_id);
	if (!path)
		return;
	/* Without the lock: to read a file can bring a module, and that takes the lock. */
	size = kernel_read_file_from_path_initns(path, 0, &blob, lineinfo_max, NULL,
						 READING_FIRMWARE);
	if (size >= 0) {
		mutex_lock(&lineinfo_lock);
		load(identity, blob, size);
		mutex_unlock(&lineinfo_lock);
		vfree(blob);
	} else if (size == -EFBIG) {
		pr_err("%s is larger than lineinfo.max=%lu; load the module with a larger one\n",
		       path, lineinfo_max);
	} else if (size != -ENOENT) {
		pr_err("cannot read %s: %zd\n", path, size);
	} else if (!identity->name[0]) {
		pr_warn("there is no table %s; build it with `lineinfo build`\n", path);
	}
	kfree(path);
}
