//! The log's content: partial updates of orders, the same for each seed and index.

/// A generator of partial updates. Every event is a pure function of seed and index.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Orders {
    pub(crate) seed: u64,
    /// How many orders there are.
    pub(crate) orders: u64,
    /// How many users they belong to.
    pub(crate) users: u64,
}

/// One event, not in the log yet.
#[derive(Clone, Debug)]
pub(crate) struct Event {
    pub(crate) partition: i32,
    pub(crate) key: String,
    /// Milliseconds since the epoch.
    pub(crate) timestamp: i64,
    pub(crate) value: String,
}

/// All of an order's events are in one partition.
pub(crate) const PARTITIONS: i32 = 4;
const BEGAN_MS: i64 = 1_700_000_000_000;
/// A double cannot hold it.
const BIG: u64 = 9_007_199_254_740_993;

impl Orders {
    pub(crate) fn new(orders: u64) -> Self {
        Orders { seed: 7, orders, users: orders.div_ceil(50).max(3) }
    }

    pub(crate) fn event(&self, index: u64) -> Event {
        let mut dice = Dice(self.seed.wrapping_mul(0x9e37_79b9).wrapping_add(index));
        dice.roll(2);
        let id = dice.roll(self.orders) + 1;
        let mut value = format!("{{\"id\":{id}");
        let user = (dice.roll(self.users) + 1).to_string();
        dice.maybe(&mut value, "userId", &user);
        let product = dice.roll(10_000).to_string();
        dice.maybe(&mut value, "productId", &product);
        let amount = if dice.roll(1_000) == 0 { BIG } else { dice.roll(100) };
        dice.maybe(&mut value, "amount", &amount.to_string());
        let price = dice.price();
        dice.maybe(&mut value, "price", &price);
        value.push('}');
        Event {
            partition: (id % PARTITIONS as u64) as i32,
            key: id.to_string(),
            timestamp: BEGAN_MS + index as i64,
            value,
        }
    }

    pub(crate) fn events(self, range: std::ops::Range<u64>) -> impl Iterator<Item = Event> {
        range.map(move |index| self.event(index))
    }
}

/// SplitMix64.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % sides
    }

    /// Half of the events have a field, some say null, the others do not name it.
    fn maybe(&mut self, out: &mut String, name: &str, value: &str) {
        let value = match self.roll(10) {
            0..5 => value,
            5..7 => "null",
            _ => return,
        };
        out.push_str(&format!(",\"{name}\":{value}"));
    }

    /// Up to three places, so that the third is rounded away; sometimes as text.
    fn price(&mut self) -> String {
        let whole = self.roll(1_000);
        match self.roll(4) {
            0 => whole.to_string(),
            1 => format!("{whole}.{}", self.roll(10)),
            2 => format!("{whole}.{:03}", self.roll(1_000)),
            _ => format!("\"{whole}.{:02}\"", self.roll(100)),
        }
    }
}
