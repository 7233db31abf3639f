// SPDX-License-Identifier: GPL-2.0 OR MIT
/*
 * /dev/lineinfo: core's device as a file; core/src/uapi.rs specifies it.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/capability.h>
#include <linux/cred.h>
#include <linux/fs.h>
#include <linux/miscdevice.h>
#include <linux/mm.h>
#include <linux/sched.h>
#include <linux/slab.h>
#include <linux/uaccess.h>
#include <linux/uidgid.h>

#include "shim.h"

/* How much is copied from user space at a time, in bytes. */
#define PIECE	(64 * 1024)

struct open_file {
	struct lineinfo_file file;
	/* For a writer; NULL for others. */
	u8 *piece;
};

static int lineinfo_open(struct inode *inode, struct file *filp)
{
	struct lineinfo_caller caller = {
		.uid = from_kuid_munged(&init_user_ns, current_uid()),
		.pid = task_tgid_nr(current),
	};
	bool writing = filp->f_mode & FMODE_WRITE;
	struct open_file *open;
	int ret = -ENOMEM;

	if (writing && !lineinfo_late) {
		pr_err_ratelimited("open refused: the module was loaded with late=0; load it without\n");
		return -EPERM;
	}
	if (has_capability_noaudit(current, CAP_SYSLOG))
		caller.rights |= LINEINFO_CALLER_MAY_SEE_ADDRESSES;
	if (writing && capable(CAP_SYS_ADMIN))
		caller.rights |= LINEINFO_CALLER_MAY_LOAD;
	open = kzalloc(sizeof(*open), GFP_KERNEL);
	if (!open)
		return -ENOMEM;
	if (writing) {
		open->piece = kvmalloc(PIECE, GFP_KERNEL);
		if (!open->piece)
			goto out;
	}
	mutex_lock(&lineinfo_lock);
	ret = lineinfo_device_open(&lineinfo_user_device, &caller, writing, &open->file);
	mutex_unlock(&lineinfo_lock);
	if (ret)
		goto out;
	filp->private_data = open;
	return 0;
out:
	kvfree(open->piece);
	kfree(open);
	return ret;
}

static int lineinfo_release(struct inode *inode, struct file *filp)
{
	struct open_file *open = filp->private_data;

	mutex_lock(&lineinfo_lock);
	lineinfo_device_close(&lineinfo_user_device, &open->file);
	mutex_unlock(&lineinfo_lock);
	lineinfo_reclaim_later();
	kvfree(open->piece);
	kfree(open);
	return 0;
}

static ssize_t lineinfo_read(struct file *filp, char __user *to, size_t size, loff_t *pos)
{
	struct open_file *open = filp->private_data;
	char text[LINEINFO_STATUS_TEXT_MAX + 1];
	struct lineinfo_status status;
	int ret;

	mutex_lock(&lineinfo_lock);
	ret = lineinfo_device_status(&lineinfo_user_device, &open->file, &status);
	mutex_unlock(&lineinfo_lock);
	if (ret)
		return ret;
	return simple_read_from_buffer(to, size, pos, text,
				       lineinfo_status_text(&status, text, sizeof(text)));
}

static ssize_t lineinfo_write(struct file *filp, const char __user *from, size_t size,
			      loff_t *pos)
{
	struct open_file *open = filp->private_data;
	size_t done = 0, piece;
	int ret = 0;

	/* The lock keeps the piece from others that write to the same file. */
	do {
		if (mutex_lock_killable(&lineinfo_lock))
			return done ?: -EINTR;
		piece = min_t(size_t, size - done, PIECE);
		if (copy_from_user(open->piece, from + done, piece))
			ret = -EFAULT;
		else
			ret = lineinfo_device_write(&lineinfo_user_device, &open->file,
						    open->piece, piece);
		mutex_unlock(&lineinfo_lock);
		if (ret)
			break;
		done += piece;
	} while (done < size);
	return done ?: ret;
}

static long lineinfo_ioctl(struct file *filp, unsigned int code, unsigned long argument)
{
	struct open_file *open = filp->private_data;
	void __user *user = (void __user *)argument;
	size_t size = _IOC_SIZE(code);
	union {
		struct lineinfo_status status;
		struct lineinfo_lookup lookup;
		struct lineinfo_target target;
	} copy = {};
	int ret;

	if (_IOC_TYPE(code) != LINEINFO_IOCTL_TYPE || size > sizeof(copy))
		return -ENOTTY;
	if (_IOC_DIR(code) & _IOC_WRITE && copy_from_user(&copy, user, size))
		return -EFAULT;
	if (mutex_lock_killable(&lineinfo_lock))
		return -EINTR;
	ret = lineinfo_device_ioctl(&lineinfo_user_device, &open->file, code, (u8 *)&copy, size);
	mutex_unlock(&lineinfo_lock);
	if (!ret && _IOC_DIR(code) & _IOC_READ && copy_to_user(user, &copy, size))
		return -EFAULT;
	return ret;
}

static int lineinfo_flush(struct file *filp, fl_owner_t id)
{
	struct open_file *open = filp->private_data;
	int ret;

	mutex_lock(&lineinfo_lock);
	ret = lineinfo_device_flush(&lineinfo_user_device, &open->file);
	mutex_unlock(&lineinfo_lock);
	return ret;
}

static const struct file_operations operations = {
	.owner = THIS_MODULE,
	.open = lineinfo_open,
	.release = lineinfo_release,
	.read = lineinfo_read,
	.write = lineinfo_write,
	.unlocked_ioctl = lineinfo_ioctl,
	.compat_ioctl = compat_ptr_ioctl,
	.flush = lineinfo_flush,
	.llseek = default_llseek,
};

static struct miscdevice device = {
	.minor = MISC_DYNAMIC_MINOR,
	.name = "lineinfo",
	.fops = &operations,
	/* Who may write is checked at open, which can say why not. */
	.mode = 0644,
};

int lineinfo_device_register(void)
{
	return misc_register(&device);
}

void lineinfo_device_unregister(void)
{
	misc_deregister(&device);
}
