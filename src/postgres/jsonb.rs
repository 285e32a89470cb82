//! jsonb read in place: no text form, no copies, every number digit kept.

use std::borrow::Cow;
use std::marker::PhantomData;

use media_assets_core::json::{Json, Kind, Members};
use pgrx::callconv::{Arg, ArgAbi, BoxRet, FcInfo};
use pgrx::pg_sys::{self, jbvType, Datum, JsonbValue};
use pgrx::pgrx_sql_entity_graph::metadata::{
    ArgumentError, ReturnsError, ReturnsRef, SqlMappingRef, SqlTranslatable, TypeOrigin,
};
use pgrx::FromDatum;

/// Bits of a container's header (`JB_CMASK` and its neighbours in utils/jsonb.h).
const COUNT_MASK: u32 = 0x0FFF_FFFF;
const IS_SCALAR: u32 = 0x1000_0000;
const IS_OBJECT: u32 = 0x2000_0000;
const IS_ARRAY: u32 = 0x4000_0000;

/// A jsonb argument or result: the detoasted bytes, borrowed from the call.
#[derive(Clone, Copy)]
pub struct Jsonb {
    pointer: *mut pg_sys::Jsonb,
}

impl Jsonb {
    /// Takes a jsonb datum; detoasts into the current memory context where needed.
    ///
    /// # Safety
    /// `datum` must be a jsonb, and what is read through the result must not outlive the datum or the memory context.
    pub unsafe fn from_raw(datum: Datum) -> Self {
        // SAFETY: a jsonb is a varlena.
        Jsonb {
            pointer: unsafe { pg_sys::pg_detoast_datum(datum.cast_mut_ptr()) }.cast(),
        }
    }

    /// Takes a value of a jsonb column, which the caller reads while it has the rows.
    pub fn of_column(datum: Datum) -> Self {
        // SAFETY: the statement that gave the datum selects a column of type jsonb; detoasted into the current context.
        unsafe { Self::from_raw(datum) }
    }

    pub fn datum(self) -> Datum {
        Datum::from(self.pointer)
    }

    /// The same value in the current memory context.
    pub fn copied(self) -> Self {
        // SAFETY: `pointer` is a detoasted varlena of the length that its header says.
        unsafe {
            let bytes = pgrx::varsize_any(self.pointer.cast());
            let copy = pg_sys::palloc(bytes);
            std::ptr::copy_nonoverlapping(self.pointer.cast::<u8>(), copy.cast(), bytes);
            Jsonb { pointer: copy.cast() }
        }
    }

    /// What the value is stored as, without the length word.
    pub fn bytes(&self) -> &[u8] {
        // SAFETY: `pointer` is a detoasted varlena, whose length word has four bytes and counts itself.
        unsafe {
            let length = pgrx::varsize_any(self.pointer.cast()) - 4;
            std::slice::from_raw_parts(self.pointer.cast::<u8>().add(4), length)
        }
    }

    /// The value as JSON text, as its column's `::text` gives it.
    pub fn to_text(self) -> String {
        // SAFETY: `pointer` is a detoasted jsonb, whose root container is as long as its header says, but for the header's
        // own four bytes; the string is NUL-terminated and in the server's encoding.
        unsafe {
            let length = pgrx::varsize_any(self.pointer.cast()) - 4;
            let container = &raw mut (*self.pointer).root;
            let text = pg_sys::JsonbToCString(std::ptr::null_mut(), container, length as i32);
            std::ffi::CStr::from_ptr(text).to_string_lossy().into_owned()
        }
    }

    /// A jsonb that the caller has just built.
    pub(super) fn of_pointer(pointer: *mut pg_sys::Jsonb) -> Self {
        Jsonb { pointer }
    }

    /// Whether both are the same to the byte, which equal values with equal digits are.
    pub fn same_bytes(self, other: Self) -> bool {
        // SAFETY: both are detoasted varlenas.
        let bytes = |jsonb: Self| unsafe {
            std::slice::from_raw_parts(jsonb.pointer.cast::<u8>(), pgrx::varsize_any(jsonb.pointer.cast()))
        };
        bytes(self) == bytes(other)
    }

    /// The value to look into, for as long as the memory context lives that holds the jsonb: a slice's work.
    pub fn value_in_context(self) -> JsonbRef<'static> {
        // SAFETY: as in `value`; the engine drops what is decided before it deletes the slice's context.
        unsafe { root(self.pointer) }
    }

    /// The value to look into.
    pub fn value(&self) -> JsonbRef<'_> {
        // SAFETY: `pointer` is a detoasted jsonb (see `from_raw`), which starts with its root container.
        unsafe { root(self.pointer) }
    }
}

/// The root of a detoasted jsonb; a scalar stands as the only element of a marked array.
unsafe fn root<'a>(jsonb: *mut pg_sys::Jsonb) -> JsonbRef<'a> {
    // SAFETY: the caller gives a valid jsonb; the element of a scalar's array always exists.
    unsafe {
        let container = &raw mut (*jsonb).root;
        if (*container).header & IS_SCALAR != 0 {
            return JsonbRef::new(*pg_sys::getIthJsonbValueFromContainer(container, 0));
        }
        let mut value: JsonbValue = std::mem::zeroed();
        value.type_ = jbvType::jbvBinary;
        value.val.binary.data = container;
        // The varlena header is four bytes.
        value.val.binary.len = (pgrx::varsize_any(jsonb.cast()) - 4) as i32;
        JsonbRef::new(value)
    }
}

/// A value inside a jsonb.
#[derive(Clone, Copy)]
pub struct JsonbRef<'a> {
    value: JsonbValue,
    _bytes: PhantomData<&'a [u8]>,
}

impl<'a> JsonbRef<'a> {
    fn new(value: JsonbValue) -> Self {
        JsonbRef {
            value,
            _bytes: PhantomData,
        }
    }

    pub(super) fn raw(self) -> JsonbValue {
        self.value
    }

    pub(super) fn container(self) -> Option<*mut pg_sys::JsonbContainer> {
        if self.value.type_ != jbvType::jbvBinary {
            return None;
        }
        // SAFETY: the union holds `binary` when the tag says so.
        Some(unsafe { self.value.val.binary.data })
    }

    fn header(self) -> u32 {
        // SAFETY: a binary value points at a container inside the jsonb.
        self.container().map_or(0, |container| unsafe { (*container).header })
    }

    /// The members of an object, in the order in which jsonb keeps them; none for anything else.
    pub fn members(self) -> Vec<(String, JsonbRef<'a>)> {
        let mut members = Vec::new();
        if self.header() & IS_OBJECT == 0 {
            return members;
        }
        // SAFETY: the iterator walks the object's container; with nested values skipped it gives pairs of key and value
        // between the begin and end tokens, and sets itself to NULL at the end.
        unsafe {
            let mut iterator = pg_sys::JsonbIteratorInit(self.value.val.binary.data);
            let mut value: JsonbValue = std::mem::zeroed();
            let mut name = String::new();
            loop {
                match pg_sys::JsonbIteratorNext(&mut iterator, &mut value, true) {
                    pg_sys::JsonbIteratorToken::WJB_DONE => break,
                    pg_sys::JsonbIteratorToken::WJB_KEY => {
                        name = JsonbRef::<'a>::new(value).as_str().unwrap_or_default().into_owned();
                    }
                    pg_sys::JsonbIteratorToken::WJB_VALUE => {
                        members.push((std::mem::take(&mut name), JsonbRef::new(value)));
                    }
                    _ => {}
                }
            }
        }
        members
    }

    /// The value as JSON text, every number digit kept.
    pub fn to_text(self) -> String {
        // SAFETY: the datum is a complete jsonb; the string is NUL-terminated and in the server's encoding.
        unsafe {
            let jsonb = self.to_datum().cast_mut_ptr::<pg_sys::Jsonb>();
            let text = pg_sys::JsonbToCString(
                std::ptr::null_mut(),
                &raw mut (*jsonb).root,
                pgrx::varsize_any(jsonb.cast()) as i32,
            );
            std::ffi::CStr::from_ptr(text).to_string_lossy().into_owned()
        }
    }

    /// Whether both are the same object or array to the byte.
    pub fn same_container(self, other: Self) -> bool {
        let bytes = |value: Self| {
            // SAFETY: a binary value points at a container of that length inside the jsonb.
            value.container().map(|container| unsafe {
                std::slice::from_raw_parts(container.cast::<u8>(), value.value.val.binary.len as usize)
            })
        };
        bytes(self).is_some_and(|own| bytes(other) == Some(own))
    }

    /// A jsonb datum of this value alone, in the current memory context.
    pub fn to_datum(self) -> Datum {
        let mut value = self.value;
        // SAFETY: the value is complete; the function copies it.
        Datum::from(unsafe { pg_sys::JsonbValueToJsonb(&mut value) })
    }
}

impl<'a> Members<'a> for JsonbRef<'a> {
    fn member(self, index: usize) -> Option<(Cow<'a, str>, Self)> {
        Members::members(self).nth(index)
    }

    fn members(self) -> impl Iterator<Item = (Cow<'a, str>, Self)> {
        JsonbRef::members(self)
            .into_iter()
            .map(|(name, value)| (Cow::Owned(name), value))
    }
}

impl<'a> Json<'a> for JsonbRef<'a> {
    fn kind(self) -> Kind {
        match self.value.type_ {
            jbvType::jbvBool => Kind::Bool,
            jbvType::jbvNumeric => Kind::Number,
            jbvType::jbvString => Kind::String,
            jbvType::jbvBinary if self.header() & IS_OBJECT != 0 => Kind::Object,
            jbvType::jbvBinary => Kind::Array,
            _ => Kind::Null,
        }
    }

    fn as_str(self) -> Option<Cow<'a, str>> {
        if self.value.type_ != jbvType::jbvString {
            return None;
        }
        // SAFETY: the tag says string; its bytes lie inside the jsonb, which lives for 'a.
        let bytes: &'a [u8] = unsafe {
            let string = self.value.val.string;
            std::slice::from_raw_parts(string.val.cast(), string.len as usize)
        };
        std::str::from_utf8(bytes).ok().map(Cow::Borrowed)
    }

    fn number_text(self) -> Option<Cow<'a, str>> {
        if self.value.type_ != jbvType::jbvNumeric {
            return None;
        }
        // SAFETY: the tag says numeric, and numeric_out takes one; its result is a fresh C string that is copied here.
        unsafe {
            let numeric = Datum::from(self.value.val.numeric);
            let text: &std::ffi::CStr = pgrx::direct_function_call(pg_sys::numeric_out, &[Some(numeric)])?;
            let owned = text.to_string_lossy().into_owned();
            pg_sys::pfree(text.as_ptr().cast_mut().cast());
            Some(Cow::Owned(owned))
        }
    }

    fn get(self, key: &str) -> Option<Self> {
        if self.header() & IS_OBJECT == 0 {
            return None;
        }
        // SAFETY: the container is an object (checked); the result is written only when the key is found.
        unsafe {
            let mut value: JsonbValue = std::mem::zeroed();
            let found = pg_sys::getKeyJsonValueFromContainer(
                self.value.val.binary.data,
                key.as_ptr().cast(),
                key.len() as i32,
                &mut value,
            );
            (!found.is_null()).then(|| JsonbRef::new(value))
        }
    }

    fn len(self) -> usize {
        (self.header() & COUNT_MASK) as usize
    }

    fn at(self, index: usize) -> Option<Self> {
        if self.header() & IS_ARRAY == 0 || index >= self.len() {
            return None;
        }
        // SAFETY: the container is an array and the index is inside it (both checked).
        unsafe {
            let found = pg_sys::getIthJsonbValueFromContainer(self.value.val.binary.data, index as u32);
            if found.is_null() {
                return None;
            }
            let value = JsonbRef::new(*found);
            pg_sys::pfree(found.cast());
            Some(value)
        }
    }
}

impl FromDatum for Jsonb {
    unsafe fn from_polymorphic_datum(datum: Datum, is_null: bool, _: pg_sys::Oid) -> Option<Self> {
        // SAFETY: the declared type of the argument is jsonb.
        (!is_null).then(|| unsafe { Jsonb::from_raw(datum) })
    }
}

// SAFETY: unboxed by FromDatum above, which fits the declared SQL type.
unsafe impl<'fcx> ArgAbi<'fcx> for Jsonb {
    unsafe fn unbox_arg_unchecked(arg: Arg<'_, 'fcx>) -> Self {
        // SAFETY: as above.
        unsafe { arg.unbox_arg_using_from_datum() }.expect("a jsonb argument that is not NULL")
    }
}

// SAFETY: the pointer is a jsonb in the memory context of the call.
unsafe impl BoxRet for Jsonb {
    unsafe fn box_into<'fcx>(self, fcinfo: &mut FcInfo<'fcx>) -> pgrx::datum::Datum<'fcx> {
        // SAFETY: as above.
        unsafe { fcinfo.return_raw_datum(self.datum()) }
    }
}

// SAFETY: argument and result are SQL's jsonb.
unsafe impl SqlTranslatable for Jsonb {
    const TYPE_IDENT: &'static str = "media_assets::postgres::jsonb::Jsonb";
    const TYPE_ORIGIN: TypeOrigin = TypeOrigin::External;
    const ARGUMENT_SQL: Result<SqlMappingRef, ArgumentError> = Ok(SqlMappingRef::literal("jsonb"));
    const RETURN_SQL: Result<ReturnsRef, ReturnsError> = Ok(ReturnsRef::One(SqlMappingRef::literal("jsonb")));
}

/// A jsonb from its text, which has to be valid JSON.
pub fn from_text(text: &str) -> Jsonb {
    let text = std::ffi::CString::new(text).unwrap_or_default();
    // SAFETY: jsonb_in takes a C string and gives a fresh jsonb.
    unsafe {
        let datum = pgrx::direct_function_call_as_datum(pg_sys::jsonb_in, &[Some(text.as_ptr().into())])
            .expect("jsonb_in never gives NULL");
        Jsonb {
            pointer: datum.cast_mut_ptr(),
        }
    }
}
