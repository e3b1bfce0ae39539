//! Tables of the messages of OTLP: number, JSON name and type of each field (opentelemetry-proto v1.10.0).
//!
//! In: nothing. Out: what the transcoder has to know about a field.

/// A message.
#[derive(Debug)]
pub struct Message {
    pub(super) fields: &'static [FieldOf],
}

/// A field of a message.
#[derive(Debug)]
pub(super) struct FieldOf {
    pub(super) number: u32,
    pub(super) name: &'static str,
    pub(super) kind: Kind,
    pub(super) repeated: bool,
}

/// Type of a field.
#[derive(Debug, Clone, Copy)]
pub(super) enum Kind {
    /// By a function: AnyValue holds AnyValues.
    Message(fn() -> &'static Message),
    Text,
    /// Trace and span ids.
    Id,
    Bytes,
    Bool,
    Enum,
    Sint32,
    Uint32,
    Fixed32,
    Int64,
    Uint64,
    Fixed64,
    Sfixed64,
    Double,
}

impl Kind {
    /// Whether a list of it may stand in one run of bytes.
    pub(super) fn is_packable(self) -> bool {
        !matches!(self, Self::Message(_) | Self::Text | Self::Id | Self::Bytes)
    }

    /// Whether an element takes eight bytes.
    pub(super) fn is_fixed64(self) -> bool {
        matches!(self, Self::Fixed64 | Self::Sfixed64 | Self::Double)
    }
}

macro_rules! messages {
    ($($visibility:vis $name:ident { $($number:literal $json:literal $kind:expr $(, $repeated:ident)?;)* })*) => {
        $(
            #[doc = concat!("`", stringify!($name), "` of OTLP.")]
            $visibility static $name: Message = Message {
                fields: &[$(FieldOf {
                    number: $number,
                    name: $json,
                    kind: $kind,
                    repeated: messages!(@repeated $($repeated)?),
                },)*],
            };
        )*
    };
    (@repeated list) => { true };
    (@repeated) => { false };
}

macro_rules! of {
    ($name:ident) => {
        Kind::Message(|| &$name)
    };
}

messages! {
    pub TRACES_REQUEST {
        1 "resourceSpans" of!(RESOURCE_SPANS), list;
    }
    pub METRICS_REQUEST {
        1 "resourceMetrics" of!(RESOURCE_METRICS), list;
    }
    RESOURCE_SPANS {
        1 "resource" of!(RESOURCE);
        2 "scopeSpans" of!(SCOPE_SPANS), list;
        3 "schemaUrl" Kind::Text;
    }
    RESOURCE_METRICS {
        1 "resource" of!(RESOURCE);
        2 "scopeMetrics" of!(SCOPE_METRICS), list;
        3 "schemaUrl" Kind::Text;
    }
    RESOURCE {
        1 "attributes" of!(KEY_VALUE), list;
        2 "droppedAttributesCount" Kind::Uint32;
        3 "entityRefs" of!(ENTITY_REF), list;
    }
    ENTITY_REF {
        1 "schemaUrl" Kind::Text;
        2 "type" Kind::Text;
        3 "idKeys" Kind::Text, list;
        4 "descriptionKeys" Kind::Text, list;
    }
    SCOPE {
        1 "name" Kind::Text;
        2 "version" Kind::Text;
        3 "attributes" of!(KEY_VALUE), list;
        4 "droppedAttributesCount" Kind::Uint32;
    }
    KEY_VALUE {
        1 "key" Kind::Text;
        2 "value" of!(ANY_VALUE);
    }
    ANY_VALUE {
        1 "stringValue" Kind::Text;
        2 "boolValue" Kind::Bool;
        3 "intValue" Kind::Int64;
        4 "doubleValue" Kind::Double;
        5 "arrayValue" of!(ARRAY_VALUE);
        6 "kvlistValue" of!(KEY_VALUE_LIST);
        7 "bytesValue" Kind::Bytes;
    }
    ARRAY_VALUE {
        1 "values" of!(ANY_VALUE), list;
    }
    KEY_VALUE_LIST {
        1 "values" of!(KEY_VALUE), list;
    }
    SCOPE_SPANS {
        1 "scope" of!(SCOPE);
        2 "spans" of!(SPAN), list;
        3 "schemaUrl" Kind::Text;
    }
    SPAN {
        1 "traceId" Kind::Id;
        2 "spanId" Kind::Id;
        3 "traceState" Kind::Text;
        4 "parentSpanId" Kind::Id;
        16 "flags" Kind::Fixed32;
        5 "name" Kind::Text;
        6 "kind" Kind::Enum;
        7 "startTimeUnixNano" Kind::Fixed64;
        8 "endTimeUnixNano" Kind::Fixed64;
        9 "attributes" of!(KEY_VALUE), list;
        10 "droppedAttributesCount" Kind::Uint32;
        11 "events" of!(EVENT), list;
        12 "droppedEventsCount" Kind::Uint32;
        13 "links" of!(LINK), list;
        14 "droppedLinksCount" Kind::Uint32;
        15 "status" of!(STATUS);
    }
    EVENT {
        1 "timeUnixNano" Kind::Fixed64;
        2 "name" Kind::Text;
        3 "attributes" of!(KEY_VALUE), list;
        4 "droppedAttributesCount" Kind::Uint32;
    }
    LINK {
        1 "traceId" Kind::Id;
        2 "spanId" Kind::Id;
        3 "traceState" Kind::Text;
        4 "attributes" of!(KEY_VALUE), list;
        5 "droppedAttributesCount" Kind::Uint32;
        6 "flags" Kind::Fixed32;
    }
    STATUS {
        2 "message" Kind::Text;
        3 "code" Kind::Enum;
    }
    SCOPE_METRICS {
        1 "scope" of!(SCOPE);
        2 "metrics" of!(METRIC), list;
        3 "schemaUrl" Kind::Text;
    }
    METRIC {
        1 "name" Kind::Text;
        2 "description" Kind::Text;
        3 "unit" Kind::Text;
        5 "gauge" of!(GAUGE);
        7 "sum" of!(SUM);
        9 "histogram" of!(HISTOGRAM);
        10 "exponentialHistogram" of!(EXPONENTIAL_HISTOGRAM);
        11 "summary" of!(SUMMARY);
        12 "metadata" of!(KEY_VALUE), list;
    }
    GAUGE {
        1 "dataPoints" of!(NUMBER_POINT), list;
    }
    SUM {
        1 "dataPoints" of!(NUMBER_POINT), list;
        2 "aggregationTemporality" Kind::Enum;
        3 "isMonotonic" Kind::Bool;
    }
    HISTOGRAM {
        1 "dataPoints" of!(HISTOGRAM_POINT), list;
        2 "aggregationTemporality" Kind::Enum;
    }
    EXPONENTIAL_HISTOGRAM {
        1 "dataPoints" of!(EXPONENTIAL_POINT), list;
        2 "aggregationTemporality" Kind::Enum;
    }
    SUMMARY {
        1 "dataPoints" of!(SUMMARY_POINT), list;
    }
    NUMBER_POINT {
        7 "attributes" of!(KEY_VALUE), list;
        2 "startTimeUnixNano" Kind::Fixed64;
        3 "timeUnixNano" Kind::Fixed64;
        4 "asDouble" Kind::Double;
        6 "asInt" Kind::Sfixed64;
        5 "exemplars" of!(EXEMPLAR), list;
        8 "flags" Kind::Uint32;
    }
    HISTOGRAM_POINT {
        9 "attributes" of!(KEY_VALUE), list;
        2 "startTimeUnixNano" Kind::Fixed64;
        3 "timeUnixNano" Kind::Fixed64;
        4 "count" Kind::Fixed64;
        5 "sum" Kind::Double;
        6 "bucketCounts" Kind::Fixed64, list;
        7 "explicitBounds" Kind::Double, list;
        8 "exemplars" of!(EXEMPLAR), list;
        10 "flags" Kind::Uint32;
        11 "min" Kind::Double;
        12 "max" Kind::Double;
    }
    EXPONENTIAL_POINT {
        1 "attributes" of!(KEY_VALUE), list;
        2 "startTimeUnixNano" Kind::Fixed64;
        3 "timeUnixNano" Kind::Fixed64;
        4 "count" Kind::Fixed64;
        5 "sum" Kind::Double;
        6 "scale" Kind::Sint32;
        7 "zeroCount" Kind::Fixed64;
        8 "positive" of!(BUCKETS);
        9 "negative" of!(BUCKETS);
        10 "flags" Kind::Uint32;
        11 "exemplars" of!(EXEMPLAR), list;
        12 "min" Kind::Double;
        13 "max" Kind::Double;
        14 "zeroThreshold" Kind::Double;
    }
    BUCKETS {
        1 "offset" Kind::Sint32;
        2 "bucketCounts" Kind::Uint64, list;
    }
    SUMMARY_POINT {
        7 "attributes" of!(KEY_VALUE), list;
        2 "startTimeUnixNano" Kind::Fixed64;
        3 "timeUnixNano" Kind::Fixed64;
        4 "count" Kind::Fixed64;
        5 "sum" Kind::Double;
        6 "quantileValues" of!(QUANTILE), list;
        8 "flags" Kind::Uint32;
    }
    QUANTILE {
        1 "quantile" Kind::Double;
        2 "value" Kind::Double;
    }
    EXEMPLAR {
        7 "filteredAttributes" of!(KEY_VALUE), list;
        2 "timeUnixNano" Kind::Fixed64;
        3 "asDouble" Kind::Double;
        6 "asInt" Kind::Sfixed64;
        4 "spanId" Kind::Id;
        5 "traceId" Kind::Id;
    }
}
