//! How the decisions of a slice are written: three statements over arrays, each counting what it wrote.

use media_assets_core::jobs::collection_ingest::{AssetState, Outcome};
use pgrx::pg_sys::Datum;

use super::super::postgres_time;
use super::super::spool::column;
use super::{Fate, Items, Page, Values, Writing};
use crate::engine::Stale;
use crate::postgres::spi::{Connection, Mode, Parameter, Rows};
use crate::postgres::{arrays, write_flag};

fn of_texts<'t, T: 't>(values: &'t [T], text: impl Fn(&'t T) -> Option<&'t str> + 't) -> Parameter {
    arrays::text(values.iter().map(text)).into()
}

/// The columns of an item that are copied as they are: uri, title, season, episode, metadata.
fn described(page: &Page, fates: &[&Fate], uri: impl Fn(&Fate) -> Option<String>) -> [Parameter; 5] {
    let uris: Vec<Option<String>> = fates.iter().map(|fate| uri(fate)).collect();
    let titles: Vec<Option<String>> = fates
        .iter()
        .map(|fate| page.rows.text(fate.row, column::TITLE))
        .collect();
    let number =
        |column| -> Parameter { arrays::int4(fates.iter().map(|fate| page.rows.get(fate.row, column))).into() };
    let metadata = fates
        .iter()
        .map(|fate| -> Option<Datum> { page.rows.datum(fate.row, column::METADATA) });
    [
        of_texts(&uris, Option::as_deref),
        of_texts(&titles, Option::as_deref),
        number(column::SEASON),
        number(column::EPISODE),
        arrays::jsonb(metadata).into(),
    ]
}

/// Content as arrays: size, time, hash, signature.
fn content_of(values: &[&Values]) -> [Parameter; 4] {
    [
        arrays::int8(values.iter().map(|values| values.content.size)).into(),
        arrays::timestamptz(values.iter().map(|values| values.content.mtime.and_then(postgres_time))).into(),
        of_texts(values, |values| values.content.hash.as_deref()),
        of_texts(values, |values| values.signature.as_deref()),
    ]
}

impl Items {
    pub(super) fn insert(
        &self,
        connection: &Connection,
        page: &Page,
        fates: &mut [Fate],
    ) -> std::result::Result<(), Stale> {
        let places: Vec<usize> = (0..fates.len())
            .filter(|place| matches!(fates[*place].writing, Writing::Insert(_)))
            .collect();
        if places.is_empty() {
            return Ok(());
        }
        for place in &places {
            fates[*place].written = Some((*uuid::Uuid::now_v7().as_bytes(), None, None));
        }
        let inserted: Vec<&Fate> = places.iter().map(|place| &fates[*place]).collect();
        let values: Vec<&Values> = inserted
            .iter()
            .filter_map(|fate| match &fate.writing {
                Writing::Insert(values) => Some(values),
                _ => None,
            })
            .collect();
        // A file's place is its locator, unless the item says otherwise.
        let is_of_files = self.collection.is_of_files();
        let [uris, titles, seasons, episodes, metadata] = described(page, &inserted, |fate| {
            let locator = || page.locator(fate.row).filter(|_| is_of_files).map(str::to_owned);
            page.rows.text(fate.row, column::URI).or_else(locator)
        });
        let [sizes, mtimes, hashes, signatures] = content_of(&values);
        let parameters = [
            arrays::uuid(inserted.iter().map(|fate| fate.written.as_ref().map(|(id, ..)| *id))).into(),
            of_texts(&inserted, |fate| page.key(fate.row)),
            uris,
            titles,
            seasons,
            episodes,
            metadata,
            sizes,
            mtimes,
            hashes,
            signatures,
            of_texts(&values, |values| values.enrichers.as_deref()),
            Parameter::uuid(self.collection.uuid),
        ];
        drop(inserted);
        let rows = write_flag::while_writing(|| connection.run(&self.insert, Mode::Write, &parameters));
        take_fingerprints(&rows, fates, &places)
    }

    pub(super) fn update(
        &self,
        connection: &Connection,
        page: &Page,
        fates: &mut [Fate],
    ) -> std::result::Result<(), Stale> {
        let places: Vec<usize> = (0..fates.len())
            .filter(|place| matches!(fates[*place].writing, Writing::Update { .. }))
            .collect();
        if places.is_empty() {
            return Ok(());
        }
        let updated: Vec<&Fate> = places.iter().map(|place| &fates[*place]).collect();
        let (values, clears): (Vec<&Values>, Vec<bool>) = updated
            .iter()
            .filter_map(|fate| match &fate.writing {
                Writing::Update {
                    values,
                    clears_technical,
                } => Some((values, *clears_technical)),
                _ => None,
            })
            .unzip();
        let states: Vec<Option<&str>> = updated
            .iter()
            .map(|fate| match fate.outcome {
                Outcome::Decided(decision) => decision.next_state.map(AssetState::name),
                Outcome::Refused(_) => None,
            })
            .collect();
        let [uris, titles, seasons, episodes, metadata] =
            described(page, &updated, |fate| page.rows.text(fate.row, column::URI));
        let [sizes, mtimes, hashes, signatures] = content_of(&values);
        let parameters = [
            ids_of(&updated),
            sizes,
            mtimes,
            hashes,
            signatures,
            of_texts(&values, |values| values.enrichers.as_deref()),
            arrays::text(states.into_iter()).into(),
            arrays::boolean(clears.into_iter().map(Some)).into(),
            uris,
            titles,
            seasons,
            episodes,
            metadata,
        ];
        drop(updated);
        let rows = write_flag::while_writing(|| connection.run(&self.update, Mode::Write, &parameters));
        take_fingerprints(&rows, fates, &places)
    }

    pub(super) fn fill_in(&self, connection: &Connection, fates: &mut [Fate]) -> std::result::Result<(), Stale> {
        let places: Vec<usize> = (0..fates.len())
            .filter(|place| matches!(fates[*place].writing, Writing::FillIn(_)))
            .collect();
        if places.is_empty() {
            return Ok(());
        }
        let filled: Vec<&Fate> = places.iter().map(|place| &fates[*place]).collect();
        let values: Vec<&Values> = filled
            .iter()
            .filter_map(|fate| match &fate.writing {
                Writing::FillIn(values) => Some(values),
                _ => None,
            })
            .collect();
        let [sizes, mtimes, hashes, signatures] = content_of(&values);
        let parameters = [ids_of(&filled), sizes, mtimes, hashes, signatures];
        drop(filled);
        let rows = write_flag::while_writing(|| connection.run(&self.fill_in, Mode::Write, &parameters));
        take_fingerprints(&rows, fates, &places)
    }
}

fn ids_of(fates: &[&Fate]) -> Parameter {
    arrays::uuid(fates.iter().map(|fate| fate.stored.as_ref().map(|stored| stored.id))).into()
}

/// Takes the fingerprints of the rows that a statement wrote; all of them have to be there.
fn take_fingerprints(rows: &Rows, fates: &mut [Fate], places: &[usize]) -> std::result::Result<(), Stale> {
    if rows.len() != places.len() {
        return Err(Stale);
    }
    let by_id: std::collections::HashMap<[u8; 16], usize> = places
        .iter()
        .filter_map(|place| Some((fates[*place].written.as_ref()?.0, *place)))
        .collect();
    for row in 0..rows.len() {
        let place = rows.uuid(row, 0).and_then(|id| by_id.get(&id));
        match place.and_then(|place| fates[*place].written.as_mut()) {
            Some((_, _, after)) => *after = rows.text(row, 1),
            None => return Err(Stale),
        }
    }
    Ok(())
}
