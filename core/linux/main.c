// SPDX-License-Identifier: GPL-2.0 OR MIT
/*
 * lineinfo: file and line in the stack traces of a kernel that was not built for it.
 *
 *   /lib/firmware/lineinfo/ --- files.c ---.
 *                                          +--> device of core --> slots of images.c
 *   /dev/lineinfo ---------- device.c -----'      (port.c)              ^
 *                                                                       |
 *   printk --> ftrace --> hooks.c: the text of a symbol, and " (file:line)"
 *
 * All that is known about tables is in core (core-*.S, made from Rust); this is the port of it to
 * Linux. The files, in the order of the picture: images.c has the slots of the kernel and of the
 * modules that are loaded, identity.c says which build they are, sysfs.c shows what they hold.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/module.h>
#include <linux/moduleparam.h>
#include <linux/security.h>
#include <linux/workqueue.h>

#include "shim.h"

/* After how long without a request a writer loses the device. */
#define IDLE_MS		30000
#define RECLAIM_PERIOD	HZ

bool lineinfo_enable;
module_param_named(enable, lineinfo_enable, bool, 0444);
MODULE_PARM_DESC(enable, "load tables from /lib/firmware/lineinfo/ (default: no)");

bool lineinfo_late = true;
module_param_named(late, lineinfo_late, bool, 0444);
MODULE_PARM_DESC(late, "take tables from /dev/lineinfo (default: yes)");

unsigned long lineinfo_max = 16 << 20;
module_param_named(max, lineinfo_max, ulong, 0444);
MODULE_PARM_DESC(max, "size of the largest table that is taken, in bytes (default: 16 MiB)");

bool lineinfo_inlines = true;
module_param_named(inlines, lineinfo_inlines, bool, 0444);
MODULE_PARM_DESC(inlines, "a line in traces for each inlined function; also /sys/kernel/lineinfo/inlines (default: yes)");

static bool kprobes;
module_param(kprobes, bool, 0444);
MODULE_PARM_DESC(kprobes, "use kprobes where ftrace would do, too (default: no)");

/* Held for every call that takes a device or changes the list of images. */
DEFINE_MUTEX(lineinfo_lock);

struct lineinfo_device lineinfo_user_device, lineinfo_file_device;

static void reclaim(struct work_struct *work);
static DECLARE_DELAYED_WORK(reclaim_work, reclaim);

static void reclaim(struct work_struct *work)
{
	bool pending;

	mutex_lock(&lineinfo_lock);
	pending = lineinfo_reclaim();
	mutex_unlock(&lineinfo_lock);
	if (pending)
		schedule_delayed_work(&reclaim_work, RECLAIM_PERIOD);
}

/* Frees tables whose readers had not left when they were replaced. */
void lineinfo_reclaim_later(void)
{
	schedule_delayed_work(&reclaim_work, RECLAIM_PERIOD);
}

static int devices_init(void)
{
	struct lineinfo_config config = {
		.max_bytes = lineinfo_max,
		.idle_ms = IDLE_MS,
		.policy = LINEINFO_POLICY_ON,
		.trust = LINEINFO_TRUST_ANYBODY,
	};
	int ret;

	/* A kernel that trusts nobody's code trusts nobody's tables; it has no Ed25519 to tell. */
	if (security_locked_down(LOCKDOWN_MODULE_SIGNATURE))
		config.trust = LINEINFO_TRUST_NOBODY;
	ret = lineinfo_device_init(&lineinfo_file_device, &config);
	if (ret)
		return ret;
	config.policy = lineinfo_late ? LINEINFO_POLICY_OFF : LINEINFO_POLICY_NEVER;
	return lineinfo_device_init(&lineinfo_user_device, &config);
}

static int __init lineinfo_init(void)
{
	int ret;

	lineinfo_slot_init(&lineinfo_kernel.slot);
	ret = lineinfo_identify_kernel(&lineinfo_kernel.identity.expected);
	if (ret)
		return ret;
	ret = devices_init();
	if (ret)
		return ret;
	ret = lineinfo_hooks_init(kprobes);
	if (ret)
		return ret;
	ret = lineinfo_images_init();
	if (ret)
		goto out_hooks;
	ret = lineinfo_sysfs_init();
	if (ret)
		goto out_images;
	ret = lineinfo_device_register();
	if (ret)
		goto out_sysfs;
	if (lineinfo_enable)
		lineinfo_load_file(&lineinfo_kernel.identity);
	return 0;

out_sysfs:
	lineinfo_sysfs_exit();
out_images:
	lineinfo_images_exit();
out_hooks:
	lineinfo_hooks_exit();
	lineinfo_slot_destroy(&lineinfo_kernel.slot);
	return ret;
}

static void __exit lineinfo_exit(void)
{
	lineinfo_device_unregister();
	lineinfo_sysfs_exit();
	lineinfo_images_exit();
	/* After this, nobody looks up. */
	lineinfo_hooks_exit();
	cancel_delayed_work_sync(&reclaim_work);
	lineinfo_slot_destroy(&lineinfo_kernel.slot);
}

module_init(lineinfo_init);
module_exit(lineinfo_exit);

MODULE_DESCRIPTION("File and line in stack traces");
MODULE_LICENSE("Dual MIT/GPL");
