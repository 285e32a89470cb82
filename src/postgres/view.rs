//! Looking through an auto-updatable view at its single base table.

use std::collections::HashMap;

use pgrx::pg_sys;

/// The relation below the view `oid` and, for each column number of the view, that of the base; `None` when the view is
/// not a plain selection from one relation.
pub fn base_of(oid: pg_sys::Oid) -> Option<(pg_sys::Oid, HashMap<i16, i16>)> {
    // SAFETY: the relation is opened with a lock and closed on every way out; the query tree belongs to its cache entry
    // and is read only while it is open.
    unsafe {
        let view = pg_sys::relation_open(oid, pg_sys::AccessShareLock as i32);
        let found = base_of_query(pg_sys::get_view_query(view));
        pg_sys::relation_close(view, pg_sys::NoLock as i32);
        found
    }
}

unsafe fn base_of_query(query: *mut pg_sys::Query) -> Option<(pg_sys::Oid, HashMap<i16, i16>)> {
    // SAFETY: walks the nodes of a stored view query, checking each node's tag before it is cast.
    unsafe {
        let from = pointers((*(*query).jointree).fromlist);
        let [single] = from[..] else { return None };
        if (*single.cast::<pg_sys::Node>()).type_ != pg_sys::NodeTag::T_RangeTblRef {
            return None;
        }
        let index = (*single.cast::<pg_sys::RangeTblRef>()).rtindex;
        let entry = pointers((*query).rtable)
            .get(index as usize - 1)?
            .cast::<pg_sys::RangeTblEntry>();
        if (*entry).rtekind != pg_sys::RTEKind::RTE_RELATION {
            return None;
        }
        let mut columns = HashMap::new();
        for target in pointers((*query).targetList) {
            let target = target.cast::<pg_sys::TargetEntry>();
            let expression = (*target).expr.cast::<pg_sys::Node>();
            if (*target).resjunk || (*expression).type_ != pg_sys::NodeTag::T_Var {
                continue;
            }
            let variable = expression.cast::<pg_sys::Var>();
            if i64::from((*variable).varno) == i64::from(index) && (*variable).varattno > 0 {
                columns.insert((*target).resno, (*variable).varattno);
            }
        }
        Some(((*entry).relid, columns))
    }
}

/// The elements of a list of pointers.
unsafe fn pointers(list: *mut pg_sys::List) -> Vec<*mut std::ffi::c_void> {
    if list.is_null() {
        return Vec::new();
    }
    // SAFETY: a list is an array of `length` cells; the caller knows that they hold pointers.
    unsafe {
        (0..(*list).length as usize)
            .map(|index| (*(*list).elements.add(index)).ptr_value)
            .collect()
    }
}
