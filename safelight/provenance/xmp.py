"""XMP packets: what readers of photo metadata show, and in JPEG and WebP our record too."""

import hashlib
import json
import xml.etree.ElementTree as ET
from collections.abc import Sequence

from pydantic import JsonValue

from safelight.provenance.parameters_text import creator_tool, printable
from safelight.provenance.record import FileRecord
from safelight.settings import settings

RDF = "http://www.w3.org/1999/02/22-rdf-syntax-ns#"
NOTE = "http://ns.adobe.com/xmp/note/"
OURS = "urn:safelight:xmp/1.0/"
_PREFIXES = {
    "x": "adobe:ns:meta/",
    "rdf": RDF,
    "dc": "http://purl.org/dc/elements/1.1/",
    "xmp": "http://ns.adobe.com/xap/1.0/",
    "xmpMM": "http://ns.adobe.com/xap/1.0/mm/",
    "xmpNote": NOTE,
    "stEvt": "http://ns.adobe.com/xap/1.0/sType/ResourceEvent#",
    "Iptc4xmpExt": "http://iptc.org/std/Iptc4xmpExt/2008-02-29/",
    "safelight": OURS,
}
for _prefix, _uri in _PREFIXES.items():
    ET.register_namespace(_prefix, _uri)

SOURCE_TYPES = "http://cv.iptc.org/newscodes/digitalsourcetype/"
_BEGIN = '<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>'.encode()
_END = b'<?xpacket end="w"?>'


def packet(record: FileRecord, *, with_record: bool, foreign: Sequence[ET.Element] = ()) -> bytes:
    """The XMP packet of a file; the same record gives the same bytes.

    Args:
        record: how the file was made.
        with_record: whether to add the whole record as `safelight:record`.
        foreign: properties that other tools wrote and that go on.
    """
    root, description = _skeleton()
    _add_short(description, record)
    _add_long(description, record, foreign, with_record=with_record)
    return _wrapped(root)


def split_packet(
    record: FileRecord, foreign: Sequence[ET.Element] = ()
) -> tuple[bytes, bytes, str]:
    """The packet with the record in two parts, for JPEG, whose segments hold 64 KB each.

    Returns:
        The short part, the part for extension segments, and its MD5 in upper-case hex.
    """
    root, description = _skeleton()
    _add_long(description, record, foreign, with_record=True)
    extension = ET.tostring(root, encoding="utf-8")
    digest = hashlib.md5(extension, usedforsecurity=False).hexdigest().upper()
    root, description = _skeleton()
    _add_short(description, record)
    ET.SubElement(description, _tag("xmpNote:HasExtendedXMP")).text = digest
    return _wrapped(root), extension, digest


def property_in(data: bytes, uri: str, name: str) -> str | None:
    """The text of one property of a packet by anyone; None when it is missing or damaged."""
    root = _parsed(data)
    if root is None:
        return None
    wanted = f"{{{uri}}}{name}"
    for element in root.iter():
        if element.tag == wanted:
            return element.text
        if wanted in element.attrib:  # other tools may store simple properties this way
            return element.attrib[wanted]
    return None


def properties_in(data: bytes) -> list[ET.Element] | None:
    """All properties of a packet by anyone, each an element of its own; None when it is damaged."""
    root = _parsed(data)
    if root is None:
        return None
    found: list[ET.Element] = []
    for description in root.iterfind(f".//{{{RDF}}}RDF/{{{RDF}}}Description"):
        for name, value in description.attrib.items():
            if not name.startswith((f"{{{RDF}}}", "{http://www.w3.org/XML/1998/namespace}")):
                simple = ET.Element(name)
                simple.text = value
                found.append(simple)
        for element in description:
            element.tail = None
            found.append(element)
    return [each for each in found if each.tag.startswith("{")]


def description_of(record: FileRecord) -> str:
    """What a file with this record says that it shows, where nobody described it."""
    return _described(record)


def _parsed(data: bytes) -> ET.Element | None:
    if b"<!DOCTYPE" in data or b"<!ENTITY" in data:
        return None  # XMP has neither; entities can be made to fill memory
    try:
        return ET.fromstring(data.strip(b"\0 \r\n\t"))
    except (ET.ParseError, ValueError, LookupError):  # LookupError: an encoding no one knows
        return None


def record_json(record: FileRecord) -> str:
    """The record in plain ASCII, which every container holds unchanged."""
    return json.dumps(record.model_dump(mode="json"), separators=(",", ":"))


def drawn_by(record: FileRecord) -> FileRecord | None:
    """The latest step in a file's history in which a model drew; None where none did."""
    steps = reversed((*record.history, record))
    return next((step for step in steps if step.origin in ("creates", "redraws")), None)


def source_type(record: FileRecord) -> str:
    """URI of the IPTC digital source type, by what the stages did to the pixels."""
    origins = {step.origin for step in (*record.history, record)}
    if "creates" in origins:
        return SOURCE_TYPES + "trainedAlgorithmicMedia"
    if "redraws" in origins:
        return SOURCE_TYPES + "compositeWithTrainedAlgorithmicMedia"
    return SOURCE_TYPES + "algorithmicallyEnhanced"


def prompt_of(record: FileRecord) -> str | None:
    """The latest prompt in a file's history."""
    for step in reversed((*record.history, record)):
        prompt = step.parameters.get("prompt")
        if isinstance(prompt, str) and prompt:
            return prompt
    return None


def _tag(name: str) -> str:
    prefix, local = name.split(":")
    return f"{{{_PREFIXES[prefix]}}}{local}"


def _skeleton() -> tuple[ET.Element, ET.Element]:
    root = ET.Element(_tag("x:xmpmeta"))
    description = ET.SubElement(ET.SubElement(root, _tag("rdf:RDF")), _tag("rdf:Description"))
    description.set(_tag("rdf:about"), "")
    return root, description


def _wrapped(root: ET.Element) -> bytes:
    return b"\n".join((_BEGIN, ET.tostring(root, encoding="utf-8"), _END))


def _add_short(description: ET.Element, record: FileRecord) -> None:
    ET.SubElement(description, _tag("xmp:CreatorTool")).text = creator_tool()
    kind = ET.SubElement(description, _tag("Iptc4xmpExt:DigitalSourceType"))
    kind.text = source_type(record)


def _add_long(
    description: ET.Element,
    record: FileRecord,
    foreign: Sequence[ET.Element],
    *,
    with_record: bool,
) -> None:
    named = {each.tag: each for each in foreign}
    caption = named.pop(_tag("dc:description"), None)
    if caption is not None and prompt_of(record) is None:
        description.append(caption)
    else:
        text = ET.SubElement(ET.SubElement(description, _tag("dc:description")), _tag("rdf:Alt"))
        alternative = ET.SubElement(text, _tag("rdf:li"))
        alternative.set("{http://www.w3.org/XML/1998/namespace}lang", "x-default")
        alternative.text = _described(record)
    events = ET.SubElement(ET.SubElement(description, _tag("xmpMM:History")), _tag("rdf:Seq"))
    for earlier in named.pop(_tag("xmpMM:History"), ET.Element("none")).iter(_tag("rdf:li")):
        if not _is_ours(earlier):
            events.append(earlier)
    for step in (*record.history, record):
        _add_event(events, step)
    for name, text in _ai_fields(record).items():
        named.pop(_tag(name), None)
        ET.SubElement(description, _tag(name)).text = text
    for each in named.values():
        description.append(each)
    if with_record:
        ET.SubElement(description, _tag("safelight:record")).text = record_json(record)


def _ai_fields(record: FileRecord) -> dict[str, str]:
    """Fields of IPTC 2025.1 on pictures that a model drew."""
    drawn = drawn_by(record)
    if drawn is None:
        return {}
    model = drawn.parameters.get("model")
    with_what = f" ({model})" if isinstance(model, str) and model else ""
    engine = f"{drawn.engine_id} {drawn.engine_version}".strip()
    found = {
        "Iptc4xmpExt:AIPromptInformation": prompt_of(record) or "",
        "Iptc4xmpExt:AIPromptWriterName": settings().marking_writer,
        "Iptc4xmpExt:AISystemUsed": creator_tool().partition(" ")[0] + with_what,
        "Iptc4xmpExt:AISystemVersionUsed": f"{creator_tool().partition(' ')[2]}"
        + (f" ({engine})" if engine else ""),
    }
    return {name: printable(text) for name, text in found.items() if text}


def _is_ours(event: ET.Element) -> bool:
    agent = event.findtext(_tag("stEvt:softwareAgent")) or ""
    return agent.startswith(creator_tool().partition(" ")[0])


def _add_event(events: ET.Element, step: FileRecord) -> None:
    event = ET.SubElement(events, _tag("rdf:li"))
    event.set(_tag("rdf:parseType"), "Resource")
    engine = f"{step.engine_id} {step.engine_version}".strip()
    facts: dict[str, JsonValue] = {"stage": step.stage, **step.parameters}
    ET.SubElement(event, _tag("stEvt:action")).text = "edited" if step.sources else "created"
    agent = f"{creator_tool()} ({engine})" if engine else creator_tool()
    ET.SubElement(event, _tag("stEvt:softwareAgent")).text = printable(agent)
    ET.SubElement(event, _tag("stEvt:parameters")).text = json.dumps(facts)


def _described(record: FileRecord) -> str:
    prompt = prompt_of(record)
    if prompt is not None:
        return printable(prompt)
    return printable(", ".join(step.stage for step in (*record.history, record)))
