//! What values of columns and inserted rows have in common: each has a place, is looked at, locked, looked at again and
//! taken back by statements over arrays.

use std::collections::HashMap;

use super::tables::Keyed;
use super::{Counters, Element, Fate, Kind};
use crate::engine::Stale;
use crate::error::Result;
use crate::postgres::spi::{Connection, Mode, Parameter, Statement};
use crate::postgres::{arrays, write_flag};

/// The parameters of every statement of a place: ids, and the texts before and after.
pub type Parameters = [Parameter; 3];

/// A FROM item `u(id, before, after, n)` over [`Parameters`].
pub fn unnested(table: &Keyed) -> String {
    format!(
        "ROWS FROM (pg_catalog.unnest($1::{}[]), pg_catalog.unnest($2), pg_catalog.unnest($3)) WITH ORDINALITY u(id, before, after, n)",
        table.key_type()
    )
}

/// A column, or a table: where a run left values or rows.
pub trait Place {
    /// What the ledger calls the changes to such places.
    const ACTION: &'static str;
    /// What becomes of a value whose place is no longer known.
    const UNKNOWN: Fate;

    /// The counter of what was taken back.
    fn counter(counters: &mut Counters) -> &mut i64;
    /// Of an element, what tells its place from others in the relation.
    fn column(element: &Element) -> Option<&str>;
    /// The type of the ids, as [`arrays::ids`] wants to know it.
    fn ids_are_uuids(&self) -> bool;
    /// What becomes of each as it is now.
    fn fates(&self, connection: &Connection, mode: Mode, elements: &[&Element], parameters: &Parameters) -> Vec<Fate>;
    /// Locks the rows, in the order of the arrays.
    fn lock(&self) -> &Statement;
    /// Takes back; affects one row for each value.
    fn take_back(&self) -> &Statement;
    /// Takes note of what a dry run would have taken back.
    ///
    /// # Errors
    /// 53400 when that is more than `media_assets.dry_run_memory` allows.
    fn remember(&self, elements: &[&Element], fates: &[Fate]) -> Result<()>;
}

/// The places that one run wrote to, by relation and column as the changes name them; a row has no column.
pub struct Places<P> {
    places: HashMap<(String, Option<String>), P>,
}

impl<P: Place> Places<P> {
    pub fn new(places: impl IntoIterator<Item = ((String, Option<String>), P)>) -> Self {
        Places {
            places: places.into_iter().collect(),
        }
    }
}

fn parameters<P: Place>(place: &P, elements: &[&Element]) -> Parameters {
    let ids = elements.iter().map(|element| Some(element.id.as_str()));
    [
        arrays::ids(place.ids_are_uuids(), ids).into(),
        arrays::text(elements.iter().map(|element| element.before.as_deref())).into(),
        arrays::text(elements.iter().map(|element| element.after.as_deref())).into(),
    ]
}

/// Elements of one place, and where they stand.
struct Group<'e, 'p, P> {
    place: &'p P,
    elements: Vec<&'e Element>,
    indexes: Vec<usize>,
}

impl<P: Place> Places<P> {
    /// The elements that are wanted, grouped by their place, in the order in which these come.
    fn groups<'e>(&self, elements: &'e [Element], wanted: impl Fn(usize) -> bool) -> Vec<Group<'e, '_, P>> {
        let mut keys: Vec<(&str, Option<&str>)> = Vec::new();
        let mut groups: Vec<Group<'e, '_, P>> = Vec::new();
        for (index, element) in elements.iter().enumerate().filter(|(index, _)| wanted(*index)) {
            let key = (element.relation.as_str(), P::column(element));
            let at = keys.iter().position(|known| *known == key);
            let group = match at {
                Some(at) => &mut groups[at],
                None => {
                    let Some(place) = self.places.get(&(key.0.to_owned(), key.1.map(str::to_owned))) else {
                        continue;
                    };
                    keys.push(key);
                    groups.push(Group {
                        place,
                        elements: Vec::new(),
                        indexes: Vec::new(),
                    });
                    let last = groups.len() - 1;
                    &mut groups[last]
                }
            };
            group.elements.push(element);
            group.indexes.push(index);
        }
        groups
    }
}

impl<P: Place> Kind for Places<P> {
    fn action(&self) -> &'static str {
        P::ACTION
    }

    fn counter<'c>(&self, counters: &'c mut Counters) -> &'c mut i64 {
        P::counter(counters)
    }

    fn begin(&mut self, _: &Connection, _: Mode) -> Result<()> {
        Ok(())
    }

    fn decide(&mut self, connection: &Connection, mode: Mode, elements: &[Element]) -> Vec<Fate> {
        let mut fates = vec![P::UNKNOWN; elements.len()];
        for group in self.groups(elements, |_| true) {
            let parameters = parameters(group.place, &group.elements);
            let of_group = group.place.fates(connection, mode, &group.elements, &parameters);
            for (index, fate) in group.indexes.into_iter().zip(of_group) {
                fates[index] = fate;
            }
        }
        fates
    }

    fn write(
        &mut self,
        connection: &Connection,
        elements: &[Element],
        fates: &[Fate],
    ) -> std::result::Result<(), Stale> {
        for mut group in self.groups(elements, |index| fates[index] == Fate::Undo) {
            // In one order everywhere, so that sessions do not wait for each other in a circle.
            group.elements.sort_unstable_by(|left, right| left.id.cmp(&right.id));
            let parameters = parameters(group.place, &group.elements);
            // What refers to a locked row has to wait: what is seen from here on is all there is.
            connection.run(group.place.lock(), Mode::Write, &parameters);
            let now = group.place.fates(connection, Mode::Write, &group.elements, &parameters);
            if now.iter().any(|fate| *fate != Fate::Undo) {
                return Err(Stale);
            }
            let taken = write_flag::while_writing(|| connection.run(group.place.take_back(), Mode::Write, &parameters));
            if taken.len() != group.elements.len() {
                return Err(Stale);
            }
        }
        Ok(())
    }

    fn remember(&mut self, elements: &[Element], fates: &[Fate]) -> Result<()> {
        for group in self.groups(elements, |_| true) {
            let of_group: Vec<Fate> = group.indexes.iter().map(|index| fates[*index]).collect();
            group.place.remember(&group.elements, &of_group)?;
        }
        Ok(())
    }
}
