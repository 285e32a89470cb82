//! Running a statement with another role's rights, as foreign-key checks do.

use pgrx::pg_sys;

/// Runs `work` as `role`, which may not change roles meanwhile, and puts the user back whatever becomes of it.
pub fn as_role<R>(role: pg_sys::Oid, work: impl FnOnce() -> R) -> R {
    struct Restore(pg_sys::Oid, i32);
    impl Drop for Restore {
        fn drop(&mut self) {
            // SAFETY: sets two variables of the backend to what they were before `work`.
            unsafe { pg_sys::SetUserIdAndSecContext(self.0, self.1) };
        }
    }
    let mut user = pg_sys::InvalidOid;
    let mut context = 0;
    // SAFETY: reads two variables of the backend into ours.
    unsafe { pg_sys::GetUserIdAndSecContext(&mut user, &mut context) };
    let _restore = Restore(user, context);
    // SAFETY: sets them; `Restore` undoes it on both ways out, and so does the end of a failed (sub)transaction.
    unsafe { pg_sys::SetUserIdAndSecContext(role, context | pg_sys::SECURITY_LOCAL_USERID_CHANGE as i32) };
    work()
}

/// The role whose rights count at this moment.
pub fn current() -> pg_sys::Oid {
    // SAFETY: reads a variable of the backend.
    unsafe { pg_sys::GetUserId() }
}

/// Its name.
pub fn current_name() -> String {
    // SAFETY: the role exists, since it is the current one; the name is a copy in the current memory context.
    unsafe {
        let name = pg_sys::GetUserNameFromId(current(), false);
        std::ffi::CStr::from_ptr(name).to_string_lossy().into_owned()
    }
}

/// Whether the current role is a member of role `name`, or is it, or is a superuser. Not so of a role that has gone.
pub fn is_member_of(name: &str) -> bool {
    let Ok(name) = std::ffi::CString::new(name) else {
        return false;
    };
    // SAFETY: the string is NUL-terminated and outlives the call.
    let role = unsafe { pg_sys::get_role_oid(name.as_ptr(), true) };
    role != pg_sys::InvalidOid && is_member(role)
}

/// As [`is_member_of`], for a role by its id.
pub fn is_member(role: pg_sys::Oid) -> bool {
    // SAFETY: looks into the catalog's cache only.
    unsafe { pg_sys::is_member_of_role(current(), role) }
}
