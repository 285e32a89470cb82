//! The rows that a statement wrote, as its AFTER triggers see them.

use pgrx::pg_sys::{self, Datum};

use super::jsonb::Jsonb;
use super::trigger::{jsonb, same_datum, text_of, Column};

/// A transition table being read.
struct Reader {
    store: *mut pg_sys::Tuplestorestate,
    pointer: i32,
    slot: *mut pg_sys::TupleTableSlot,
}

impl Reader {
    unsafe fn of(store: *mut pg_sys::Tuplestorestate, descriptor: pg_sys::TupleDesc) -> Option<Self> {
        if store.is_null() {
            return None;
        }
        // SAFETY: the caller gives a live store and the descriptor of its rows. The read pointer is our own, so that
        // other readers of the store (a trigger's queries) do not notice.
        unsafe {
            let pointer = pg_sys::tuplestore_alloc_read_pointer(store, pg_sys::EXEC_FLAG_REWIND as i32);
            pg_sys::tuplestore_select_read_pointer(store, pointer);
            pg_sys::tuplestore_rescan(store);
            Some(Reader {
                store,
                pointer,
                slot: pg_sys::MakeSingleTupleTableSlot(descriptor, &raw const pg_sys::TTSOpsMinimalTuple),
            })
        }
    }

    fn advance(&mut self) -> bool {
        // SAFETY: store and slot are alive while the reader is.
        unsafe {
            pg_sys::tuplestore_select_read_pointer(self.store, self.pointer);
            pg_sys::tuplestore_gettupleslot(self.store, true, false, self.slot)
        }
    }

    fn value(&self, column: &Column) -> Option<Datum> {
        // SAFETY: the slot holds a row of the descriptor that the column is of, and has its values up to it once they are
        // asked for.
        unsafe {
            if i32::from((*self.slot).tts_nvalid) < column.number {
                pg_sys::slot_getsomeattrs_int(self.slot, column.number);
            }
            let place = column.number as usize - 1;
            (!*(*self.slot).tts_isnull.add(place)).then(|| *(*self.slot).tts_values.add(place))
        }
    }

    fn text(&self, column: &Column) -> Option<String> {
        Some(text_of(column, self.value(column)?))
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        // While unwinding, the slot goes with its memory context.
        if !std::thread::panicking() {
            // SAFETY: the slot was made by `of` and is dropped once.
            unsafe { pg_sys::ExecDropSingleTupleTableSlot(self.slot) };
        }
    }
}

/// The old and the new rows of a statement.
pub struct Transitions {
    old: Option<Reader>,
    new: Option<Reader>,
}

/// The columns of the lesson table that transitions are read by.
pub struct LessonColumns {
    pub id: Column,
    pub course: Column,
    pub videos: Column,
    pub documents: Column,
}

/// The media of a row.
pub struct Media {
    pub course: Option<String>,
    pub videos: Option<Jsonb>,
    pub documents: Option<Jsonb>,
}

impl Media {
    /// The same in the current memory context.
    fn copied(self) -> Self {
        Media {
            videos: self.videos.map(Jsonb::copied),
            documents: self.documents.map(Jsonb::copied),
            ..self
        }
    }
}

/// A row that a statement wrote.
pub struct Written {
    pub id: String,
    /// `None` when the row was deleted, or has another id now.
    pub now: Option<Media>,
    /// What a row with the same id was before, where its course is the same.
    pub before: Option<Media>,
}

impl Reader {
    /// Borrowed from the present row.
    fn media(&self, columns: &LessonColumns) -> Media {
        Media {
            course: self.text(&columns.course),
            videos: jsonb(&columns.videos, self.value(&columns.videos)),
            documents: jsonb(&columns.documents, self.value(&columns.documents)),
        }
    }

    /// Lets go of the present row, whose memory may go now.
    fn release(&mut self) {
        // SAFETY: the slot is alive; clearing it twice does nothing.
        unsafe {
            if let Some(clear) = (*(*self.slot).tts_ops).clear {
                clear(self.slot);
            }
        }
    }
}

/// Rows whose media changed that are looked at in one memory context.
const MOST_LOOKED_AT: usize = 2000;

impl Transitions {
    /// # Safety
    /// The tables, where there are any, must live as long as this does, and have rows of `descriptor`.
    pub(super) unsafe fn of(
        old: *mut pg_sys::Tuplestorestate,
        new: *mut pg_sys::Tuplestorestate,
        descriptor: pg_sys::TupleDesc,
    ) -> Self {
        // SAFETY: as the caller promises.
        unsafe {
            Transitions {
                old: Reader::of(old, descriptor),
                new: Reader::of(new, descriptor),
            }
        }
    }

    /// How many rows the statement wrote.
    pub fn len(&self) -> i64 {
        let rows = |reader: &Option<Reader>| {
            // SAFETY: the store is alive while its reader is.
            reader
                .as_ref()
                .map_or(0, |reader| unsafe { pg_sys::tuplestore_tuple_count(reader.store) })
        };
        rows(&self.new).max(rows(&self.old))
    }

    /// At most `limit` rows to look at, or one more; `None` when there are no more to come.
    ///
    /// The two tables of an UPDATE are read side by side, as the server writes them: a row that has the same id, course and
    /// media in both is passed over, and so is one whose media changed but of which `is_settled` says that nothing is to
    /// do. Should the tables ever get out of step, more rows are given, never fewer.
    pub fn changed(
        &mut self,
        columns: &LessonColumns,
        limit: usize,
        is_settled: impl Fn(&Written) -> bool,
    ) -> Option<Vec<Written>> {
        let mut rows = Vec::new();
        let (mut looked_at, mut is_over) = (0, false);
        while rows.len() < limit && looked_at < MOST_LOOKED_AT {
            pgrx::check_for_interrupts!();
            let has_old = self.old.as_mut().is_some_and(Reader::advance);
            let has_new = self.new.as_mut().is_some_and(Reader::advance);
            let gone = |old: &Reader| Written {
                id: old.text(&columns.id).unwrap_or_default(),
                now: None,
                before: None,
            };
            let written = |new: &Reader| Written {
                id: new.text(&columns.id).unwrap_or_default(),
                now: Some(new.media(columns).copied()),
                before: None,
            };
            match (
                self.old.as_ref().filter(|_| has_old),
                self.new.as_ref().filter(|_| has_new),
            ) {
                (None, None) => {
                    is_over = true;
                    break;
                }
                (Some(old), Some(new)) => {
                    let same = |column: &Column| same_datum(column, old.value(column), new.value(column));
                    if !same(&columns.id) {
                        rows.extend([gone(old), written(new)]);
                    } else if !same(&columns.course) {
                        rows.push(written(new));
                    } else if !same(&columns.videos) || !same(&columns.documents) {
                        looked_at += 1;
                        let row = Written {
                            id: new.text(&columns.id).unwrap_or_default(),
                            now: Some(new.media(columns)),
                            before: Some(old.media(columns)),
                        };
                        if !is_settled(&row) {
                            rows.push(Written {
                                now: row.now.map(Media::copied),
                                before: row.before.map(Media::copied),
                                ..row
                            });
                        }
                    }
                }
                (Some(old), None) => rows.push(gone(old)),
                (None, Some(new)) => rows.push(written(new)),
            }
        }
        [&mut self.old, &mut self.new]
            .into_iter()
            .flatten()
            .for_each(Reader::release);
        (!is_over || !rows.is_empty()).then_some(rows)
    }
}
