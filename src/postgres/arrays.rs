//! Array parameters for set-based statements.

use media_assets_core::jobs::lesson::parse_asset_id;
use pgrx::pg_sys::{self, Datum};

/// An array datum and the type it has.
#[derive(Clone, Copy)]
pub struct ArrayDatum {
    pub datum: Datum,
    pub type_oid: pg_sys::Oid,
}

struct Element {
    type_oid: pg_sys::Oid,
    array_oid: pg_sys::Oid,
    length: i32,
    by_value: bool,
    align: u8,
}

const TEXT: Element = Element {
    type_oid: pg_sys::TEXTOID,
    array_oid: pg_sys::TEXTARRAYOID,
    length: -1,
    by_value: false,
    align: b'i',
};
const JSONB: Element = Element {
    type_oid: pg_sys::JSONBOID,
    array_oid: pg_sys::JSONBARRAYOID,
    length: -1,
    by_value: false,
    align: b'i',
};
const UUID: Element = Element {
    type_oid: pg_sys::UUIDOID,
    array_oid: pg_sys::UUIDARRAYOID,
    length: 16,
    by_value: false,
    align: b'c',
};
const BOOL: Element = Element {
    type_oid: pg_sys::BOOLOID,
    array_oid: pg_sys::BOOLARRAYOID,
    length: 1,
    by_value: true,
    align: b'c',
};
const INT4: Element = Element {
    type_oid: pg_sys::INT4OID,
    array_oid: pg_sys::INT4ARRAYOID,
    length: 4,
    by_value: true,
    align: b'i',
};
const INT8: Element = Element {
    type_oid: pg_sys::INT8OID,
    array_oid: pg_sys::INT8ARRAYOID,
    length: 8,
    by_value: true,
    align: b'd',
};

const TID: Element = Element {
    type_oid: pg_sys::TIDOID,
    array_oid: pg_sys::TIDARRAYOID,
    length: 6,
    by_value: false,
    align: b's',
};
const TIMESTAMPTZ: Element = Element {
    type_oid: pg_sys::TIMESTAMPTZOID,
    array_oid: pg_sys::TIMESTAMPTZARRAYOID,
    length: 8,
    by_value: true,
    align: b'd',
};

fn build(element: &Element, values: impl Iterator<Item = Option<Datum>>) -> ArrayDatum {
    let mut datums = Vec::with_capacity(values.size_hint().0);
    let mut nulls = Vec::with_capacity(values.size_hint().0);
    for value in values {
        nulls.push(value.is_none());
        datums.push(value.unwrap_or(Datum::from(0usize)));
    }
    let mut dimensions = [datums.len() as i32];
    let mut lower_bounds = [1];
    // SAFETY: the two vectors have the length that `dimensions` names; element length, by-value and alignment are those
    // of the built-in type; the array is a copy in the current memory context.
    let array = unsafe {
        pg_sys::construct_md_array(
            datums.as_mut_ptr(),
            nulls.as_mut_ptr(),
            1,
            dimensions.as_mut_ptr(),
            lower_bounds.as_mut_ptr(),
            element.type_oid,
            element.length,
            element.by_value,
            element.align as std::ffi::c_char,
        )
    };
    ArrayDatum {
        datum: Datum::from(array),
        type_oid: element.array_oid,
    }
}

/// A `text` datum, copied into the current memory context.
pub fn text_datum(text: &str) -> Datum {
    // SAFETY: pointer and length are those of the str; the function copies.
    unsafe {
        Datum::from(pg_sys::cstring_to_text_with_len(
            text.as_ptr().cast(),
            text.len() as i32,
        ))
    }
}

/// A `uuid` datum, copied into the current memory context.
pub fn uuid_datum(id: [u8; 16]) -> Datum {
    // SAFETY: sixteen bytes are allocated and written.
    unsafe {
        let copy = pg_sys::palloc(16).cast::<u8>();
        std::ptr::copy_nonoverlapping(id.as_ptr(), copy, 16);
        Datum::from(copy)
    }
}

pub fn text<'t>(values: impl Iterator<Item = Option<&'t str>>) -> ArrayDatum {
    build(&TEXT, values.map(|value| value.map(text_datum)))
}

/// `jsonb[]` of datums that are already jsonb.
pub fn jsonb(values: impl Iterator<Item = Option<Datum>>) -> ArrayDatum {
    build(&JSONB, values)
}

pub fn uuid(values: impl Iterator<Item = Option<[u8; 16]>>) -> ArrayDatum {
    build(&UUID, values.map(|value| value.map(uuid_datum)))
}

/// Ids in their text form, as `uuid[]` where the columns they come from and go to are of that type: they need no parsing
/// by SQL then. Otherwise `text[]`, which the statement casts.
pub fn ids<'t>(are_uuids: bool, values: impl Iterator<Item = Option<&'t str>>) -> ArrayDatum {
    if are_uuids {
        uuid(values.map(|value| value.and_then(parse_asset_id)))
    } else {
        text(values)
    }
}

pub fn boolean(values: impl Iterator<Item = Option<bool>>) -> ArrayDatum {
    build(&BOOL, values.map(|value| value.map(Datum::from)))
}

pub fn int4(values: impl Iterator<Item = Option<i32>>) -> ArrayDatum {
    build(&INT4, values.map(|value| value.map(Datum::from)))
}

pub fn int8(values: impl Iterator<Item = Option<i64>>) -> ArrayDatum {
    build(&INT8, values.map(|value| value.map(Datum::from)))
}

/// Microseconds since 2000, as PostgreSQL counts them.
pub fn timestamptz(values: impl Iterator<Item = Option<i64>>) -> ArrayDatum {
    build(&TIMESTAMPTZ, values.map(|value| value.map(Datum::from)))
}

/// Places of rows, as [`super::spi::Rows::tid`] gives them.
pub fn tid(values: impl Iterator<Item = Option<[u8; 6]>>) -> ArrayDatum {
    let copied = |place: [u8; 6]| {
        // SAFETY: six bytes, as long as an ItemPointerData, are allocated and written.
        unsafe {
            let copy = pg_sys::palloc(place.len()).cast::<u8>();
            std::ptr::copy_nonoverlapping(place.as_ptr(), copy, place.len());
            Datum::from(copy)
        }
    };
    build(&TID, values.map(|value| value.map(copied)))
}
