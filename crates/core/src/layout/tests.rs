//! Hand-made layouts for the borders, then random ones against a list of every single page.

use proptest::prelude::*;

use super::*;

const KIB4: u64 = 4096;
const MIB2: u64 = 2 << 20;

fn region(base: u64, start: u64, end: u64) -> Region {
    Region { base: GuestAddr(base), pages: PageRange::new(start, end) }
}

fn small(regions: &[Region]) -> Result<Layout, LayoutError> {
    Layout::new(PageSize::Small, regions.to_vec())
}

/// A guest as a real one looks: the second region lies directly below the first.
fn swapped() -> Layout {
    small(&[region(0x20_000, 0, 3), region(0x1e_000, 3, 5)]).unwrap()
}

fn inside(layout: &Layout, start: u64, end: u64) -> Vec<PageRange> {
    layout.pages_inside(GuestAddr(start), GuestAddr(end)).collect()
}

#[test]
fn a_page_is_found_at_each_of_its_bytes_and_nowhere_else() {
    let layout = swapped();
    assert_eq!(layout.page_at(GuestAddr(0x1d_fff)), None);
    assert_eq!(layout.page_at(GuestAddr(0x1e_000)), Some(PageIndex(3)));
    assert_eq!(layout.page_at(GuestAddr(0x1e_fff)), Some(PageIndex(3)));
    assert_eq!(layout.page_at(GuestAddr(0x1f_fff)), Some(PageIndex(4)));
    assert_eq!(layout.page_at(GuestAddr(0x20_000)), Some(PageIndex(0)));
    assert_eq!(layout.page_at(GuestAddr(0x22_fff)), Some(PageIndex(2)));
    assert_eq!(layout.page_at(GuestAddr(0x23_000)), None);
    assert_eq!(layout.page_at(GuestAddr(u64::MAX)), None);
}

#[test]
fn a_page_has_one_address_and_one_region() {
    let layout = swapped();
    assert_eq!(layout.addr_of(PageIndex(2)), Some(GuestAddr(0x22_000)));
    assert_eq!(layout.addr_of(PageIndex(3)), Some(GuestAddr(0x1e_000)));
    assert_eq!(layout.addr_of(PageIndex(5)), None);
    assert_eq!(layout.addr_of(PageIndex(u64::MAX)), None);
    assert_eq!(layout.region_of(PageIndex(4)), Some(&region(0x1e_000, 3, 5)));
}

#[test]
fn pages_are_counted_without_the_gaps_and_indexed_with_them() {
    let layout = small(&[region(0x9000, 10, 12), region(0x1000, 2, 5)]).unwrap();
    assert_eq!(layout.page_end(), PageIndex(12));
    assert_eq!(layout.page_count(), 5);
    assert_eq!(layout.regions(), [region(0x1000, 2, 5), region(0x9000, 10, 12)]);
    assert_eq!(layout.page_size(), PageSize::Small);
}

#[test]
fn a_range_of_pages_is_split_at_region_borders() {
    let spans = |start, end| swapped().spans(PageRange::new(start, end)).collect::<Vec<_>>();
    let span = |addr, start, end| Span { addr: GuestAddr(addr), pages: PageRange::new(start, end) };
    assert_eq!(spans(0, u64::MAX), [span(0x20_000, 0, 3), span(0x1e_000, 3, 5)]);
    assert_eq!(spans(2, 4), [span(0x22_000, 2, 3), span(0x1e_000, 3, 4)]);
    assert_eq!(spans(4, 4), []);
    assert_eq!(spans(4, 1), []);
    assert_eq!(spans(5, 9), []);
}

#[test]
fn a_range_of_pages_skips_a_gap() {
    let layout = small(&[region(0x1000, 0, 1), region(0x3000, 4, 6)]).unwrap();
    let pages: Vec<_> = layout.spans(PageRange::new(0, 5)).map(|span| span.pages).collect();
    assert_eq!(pages, [PageRange::new(0, 1), PageRange::new(4, 5)]);
    assert_eq!(layout.spans(PageRange::new(1, 4)).count(), 0);
}

#[test]
fn an_address_range_over_two_regions_gives_both_in_order_of_address() {
    let layout = swapped();
    assert_eq!(inside(&layout, 0x1f_000, 0x21_000), [PageRange::new(4, 5), PageRange::new(0, 1)]);
    assert_eq!(inside(&layout, 0, u64::MAX), [PageRange::new(3, 5), PageRange::new(0, 3)]);
}

#[test]
fn an_address_range_is_rounded_inwards() {
    let layout = swapped();
    assert_eq!(inside(&layout, 0x20_001, 0x22_fff), [PageRange::new(1, 2)]);
    assert_eq!(inside(&layout, 0x20_001, 0x21_fff), []);
    assert_eq!(inside(&layout, 0x20_001, 0x20_002), []);
    assert_eq!(inside(&layout, 0x22_001, 0x30_000), []);
    assert_eq!(inside(&layout, 0x21_000, 0x21_000), []);
    assert_eq!(inside(&layout, 0x22_000, 0x21_000), []);
}

#[test]
fn an_address_range_is_rounded_inwards_to_huge_pages() {
    let layout = Layout::new(PageSize::Huge, vec![region(4 * MIB2, 0, 4)]).unwrap();
    assert_eq!(inside(&layout, 4 * MIB2 + KIB4, 7 * MIB2 - KIB4), [PageRange::new(1, 2)]);
    assert_eq!(layout.page_at(GuestAddr(5 * MIB2 + 12345)), Some(PageIndex(1)));
    assert_eq!(layout.addr_of(PageIndex(3)), Some(GuestAddr(7 * MIB2)));
    assert_eq!(layout.regions()[0].size(PageSize::Huge), 4 * MIB2);
    assert_eq!(layout.regions()[0].end(PageSize::Huge), GuestAddr(8 * MIB2));
}

#[test]
fn a_region_may_end_one_page_below_the_top_of_the_address_space() {
    let top = u64::MAX - (KIB4 - 1);
    let layout = small(&[region(top - KIB4, 0, 1)]).unwrap();
    assert_eq!(layout.page_at(GuestAddr(top - 1)), Some(PageIndex(0)));
    assert_eq!(layout.page_at(GuestAddr(top)), None);
    assert_eq!(inside(&layout, 0, u64::MAX), [PageRange::new(0, 1)]);

    let error = small(&[region(top, 0, 1)]).unwrap_err();
    assert_eq!(error, LayoutError::AddressOverflow { region: 0, base: GuestAddr(top), size: KIB4 });
}

#[test]
fn what_is_not_a_guest_is_refused_by_region_number() {
    assert_eq!(small(&[]), Err(LayoutError::NoRegions));
    assert_eq!(
        small(&[region(0x1000, 0, 1), region(0x2000, 1, 1)]),
        Err(LayoutError::Empty { region: 1 })
    );
    assert_eq!(
        small(&[region(0x1800, 0, 1)]),
        Err(LayoutError::UnalignedBase {
            region: 0,
            base: GuestAddr(0x1800),
            page_size: PageSize::Small
        })
    );
    assert_eq!(
        small(&[region(0x1000, 0, 1 << 52)]),
        Err(LayoutError::OffsetOverflow { region: 0, pages: PageRange::new(0, 1 << 52) })
    );
}

#[test]
fn regions_that_share_anything_are_refused() {
    assert_eq!(
        small(&[region(0x3000, 0, 2), region(0x1000, 2, 5)]),
        Err(LayoutError::AddressOverlap {
            region: 0,
            base: GuestAddr(0x3000),
            other: 1,
            end: GuestAddr(0x4000)
        })
    );
    assert_eq!(
        small(&[region(0x1000, 0, 3), region(0x9000, 2, 4)]),
        Err(LayoutError::OffsetOverlap { region: 1, offset: 0x2000, other: 0, end: 0x3000 })
    );
}

/// Regions with random sizes, gaps between addresses and gaps between offsets, each of the two
/// in an order of its own: on both sides of the border between few and many.
fn any_regions() -> impl Strategy<Value = (PageSize, Vec<Region>)> {
    let one = (1..5_u64, 0..3_u64, 0..3_u64);
    (prop::collection::vec(one, 1..=2 * FEW), any::<bool>())
        .prop_flat_map(|(sizes, huge)| {
            let order: Vec<usize> = (0..sizes.len()).collect();
            (Just(sizes), Just(huge), Just(order).prop_shuffle())
        })
        .prop_map(|(sizes, huge, order)| {
            let page_size = if huge { PageSize::Huge } else { PageSize::Small };
            let mut regions = vec![region(0, 0, 0); sizes.len()];
            let mut page = 0;
            for (region, (pages, gap, _)) in regions.iter_mut().zip(&sizes) {
                region.pages = PageRange::new(page + gap, page + gap + pages);
                page += gap + pages;
            }
            let mut addr = 16;
            for number in order {
                addr += sizes[number].2;
                regions[number].base = GuestAddr(addr * page_size.bytes());
                addr += sizes[number].0;
            }
            (page_size, regions)
        })
}

/// Every page of every region, one by one.
fn every_page(page_size: PageSize, regions: &[Region]) -> Vec<(PageIndex, GuestAddr)> {
    let pages_of = |r: &Region| {
        let base = r.base.0;
        let numbered = r.pages.pages().zip(0..);
        numbered
            .map(move |(page, n)| (page, GuestAddr(base + n * page_size.bytes())))
            .collect::<Vec<_>>()
    };
    regions.iter().flat_map(pages_of).collect()
}

proptest! {
    #[test]
    fn lookups_agree_with_a_list_of_every_page((page_size, regions) in any_regions()) {
        let layout = Layout::new(page_size, regions.clone()).unwrap();
        let all = every_page(page_size, &regions);
        prop_assert_eq!(layout.page_count(), all.len() as u64);
        prop_assert_eq!(layout.page_end(), all.iter().map(|(page, _)| page.next()).max().unwrap());

        for page in PageRange::new(0, layout.page_end().0 + 2).pages() {
            let addr = all.iter().find(|(p, _)| *p == page).map(|(_, addr)| *addr);
            prop_assert_eq!(layout.addr_of(page), addr);
            let owner = regions.iter().find(|r| r.pages.contains(page));
            prop_assert_eq!(layout.region_of(page), owner);
        }
        let bytes = page_size.bytes();
        for slot in 14..16 + 16 * 8 {
            let addr = GuestAddr(slot * bytes);
            let page = all.iter().find(|(_, a)| *a == addr).map(|(page, _)| *page);
            for byte in [0, 1, bytes / 2, bytes - 1] {
                prop_assert_eq!(layout.page_at(GuestAddr(addr.0 + byte)), page);
            }
        }
    }

    #[test]
    fn spans_are_the_range_page_by_page(
        (page_size, regions) in any_regions(),
        start in 0..130_u64,
        len in 0..130_u64,
    ) {
        let layout = Layout::new(page_size, regions.clone()).unwrap();
        let range = PageRange::new(start, start + len);
        let mut expected = every_page(page_size, &regions);
        expected.retain(|(page, _)| range.contains(*page));
        expected.sort_by_key(|(page, _)| *page);

        let spans: Vec<Span> = layout.spans(range).collect();
        let as_regions: Vec<_> =
            spans.iter().map(|s| Region { base: s.addr, pages: s.pages }).collect();
        prop_assert_eq!(every_page(page_size, &as_regions), expected);
        for span in spans {
            prop_assert!(!span.pages.is_empty());
            prop_assert!(regions.iter().any(|r| r.pages.intersect(span.pages) == span.pages));
        }
    }

    #[test]
    fn pages_inside_are_those_with_every_byte_in_the_range(
        (page_size, regions) in any_regions(),
        start in 14..150_u64,
        len in 0..130_u64,
        nudges in (-1..=1_i64, -1..=1_i64),
    ) {
        let layout = Layout::new(page_size, regions.clone()).unwrap();
        let bytes = page_size.bytes();
        let start = (start * bytes).saturating_add_signed(nudges.0);
        let end = (start + len * bytes).saturating_add_signed(nudges.1);
        let mut expected = every_page(page_size, &regions);
        expected.retain(|(_, addr)| start <= addr.0 && addr.0 + bytes <= end);
        expected.sort_by_key(|(_, addr)| *addr);
        let expected: Vec<_> = expected.into_iter().map(|(page, _)| page).collect();

        let ranges = inside(&layout, start, end);
        let pages: Vec<_> = ranges.iter().flat_map(|range| range.pages()).collect();
        prop_assert_eq!(pages, expected);
        prop_assert!(ranges.iter().all(|range| !range.is_empty()));
    }
}
