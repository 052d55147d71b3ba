"""What a prompt says of how a picture is made, and not of what it shows: `a photo of`, `, 4k`.

Such words stand at the beginning or at the end. Words for the same in the middle ("a man taking a
photo of a dog") are things.
"""

import re

from pipeline.prompts.lexicon import lexicon

_ADJECTIVES = (
    "realistic|photo[- ]?realistic|hyper[- ]?realistic|ultra[- ]?realistic|lifelike|surreal"
    "|beautiful|stunning|gorgeous|nice|cute|simple|minimalist(?:ic)?|abstract|colou?rful"
    "|high[- ]quality|low[- ]quality|good[- ]quality|top[- ]quality|good|bad|great"
    "|high[- ]res(?:olution)?|low[- ]res(?:olution)?|high[- ]definition|hd|uhd|hdr|4k|8k"
    "|(?:highly |very |ultra[- ]?|intricately )?detailed|sharp|blurry|blurred|pixelated|grainy"
    "|professional|amateur|candid|stock|studio|editorial|documentary|award[- ]winning|raw"
    "|close[- ]?up|macro|wide[- ]angle|wide|full[- ]body|full[- ]length|aerial|overhead|cropped"
    "|(?:bird|worm)['\u2019]?s[- ]eye"
    "|top[- ]down|low[- ]angle|high[- ]angle|eye[- ]level|drone|dslr|analog|film|polaroid|iphone"
    "|digital|oil|acrylic|watercolou?r|gouache|pastel|pencil|charcoal|ink|pen(?:cil)?(?: and ink)?"
    "|crayon|chalk|vector|line|3d|2d|cgi|pixel|anime|manga|cartoon|comic(?: book)?|concept|fantasy"
    "|cinematic|dramatic|vintage|retro|old|impressionist(?:ic)?|expressionist|cubist|baroque"
    "|black[- ]and[- ]white|black & white|monochrome|sepia|colou?r|bright|dark"
    "|rendered|hand[- ]drawn|hand[- ]painted|ai[- ]generated|computer[- ]generated|octane|blender"
    "|sketchy|quick|artistic|(?:children'?s'? )?(?:story)?book|artist'?s|polaroid|gritty"
    r"|\w+-style"
)
_MEDIA = (
    "photos?|photographs?|photography|pictures?|pics?|images?|snapshots?|close[- ]?ups?"
    "|paintings?|drawings?|sketch(?:es)?|illustrations?|renders?|renderings?|artworks?|art"
    "|portraits?|depictions?|doodles?|watercolou?rs?|cartoons?|headshots?|selfies?|stills?|views?"
    "|still life|scenes?|polaroids?|clip[- ]?art|(?:artistic )?renditions?"
)
_ARTICLE = r"(?:an?|the|this|one|some|my)"
_MEDIUM = (
    rf"(?:{_ARTICLE}\s+)?(?:(?:(?:{_ADJECTIVES})[\s,]+){{0,6}}(?:(?:{_MEDIA})\s+){{0,2}}(?:{_MEDIA})"
    rf"|(?:(?:{_ADJECTIVES})[\s,]+){{1,6}}shots?)"
)
_SHOWS = (
    r"(?:show(?:s|ing)?|depict(?:s|ing)?|featur(?:es?|ing)|captur(?:es?|ing)|portray(?:s|ing)?)"
)
_ASKS = (
    r"(?:please\s+)?(?:(?:can|could|would|will)\s+you\s+(?:please\s+)?|i\s+(?:want|need)\s+(?:you\s+to\s+)?"
    r"|i(?:\s+would|'?d)\s+like\s+(?:you\s+to\s+)?|let'?s\s+|help\s+me\s+(?:to\s+)?)?"
    r"(?:(?:generate|create|draw|paint|render|make|imagine|produce|design|sketch|visuali[sz]e"
    r"|depict|illustrate|show|give|see)\s+(?:me\s+|us\s+)?)?"
)
_NOUN_FOLLOWS = r"(?=(?:an?|the|one|two|three|four|five|six|seven|eight|nine|ten|some|\d+)\s)"
_LEADS = re.compile(
    r"(?:"
    rf"{_ASKS}{_MEDIUM}(?:\s+(?:of|in\s+which(?:\s+there\s+(?:is|are))?|(?:that\s+)?{_SHOWS}|taken\s+of)\b"
    r"|\s*:)\s*"
    rf"|(?:an?|the)\s+(?:scene|image)\s+with\s+{_NOUN_FOLLOWS}"
    r"|(?:(?:can|could|would)\s+you\s+(?:please\s+)?)?"
    rf"(?:make|show|give|produce|generate|create|draw|paint|render|imagine|visuali[sz]e|depict|illustrate|sketch)\s+"
    rf"(?:me\s+|us\s+)?{_NOUN_FOLLOWS}"
    rf"|(?:please\s+)?(?:make|show|give)\s+(?:me|us)\s+{_NOUN_FOLLOWS}"
    rf"|(?:i\s+(?:want|need)|i(?:\s+would|'?d)\s+like)\s+(?:to\s+see\s+)?{_NOUN_FOLLOWS}"
    r"|(?:please\s+|prompt\s*:\s*|/imagine(?:\s+prompt\s*:)?\s*)"
    r"|in\s+the\s+style\s+of\s+[^,]+,\s*"
    r"|in\s+(?:this|the)\s+(?:image|picture|photo|painting|scene)\s*,?\s*"
    r"|(?:there\s+(?:is|are)|there's|here\s+is|this\s+is)\s+" + _NOUN_FOLLOWS + r")",
    re.I,
)
_STYLE_WORDS = (
    "realistic|photo[- ]?realistic|hyper[- ]?realistic|ultra[- ]?realistic|lifelike"
    "|minimalist(?:ic)?|anime|manga|cartoon|cinematic|impressionist(?:ic)?|monochrome|sepia"
    "|black[- ]and[- ]white"
    "|hand[- ]drawn|hand[- ]painted|close[- ]?up|macro|wide[- ]angle|watercolou?r|3d|cgi|film grain"
)
_TAIL_MEDIA = (
    "photo|photograph|photography|picture|image|painting|drawing|sketch|illustration|render"
    "|rendering|artwork|portrait|shot|art"
)
_STYLE_TAIL = (
    rf"(?:(?:{_ADJECTIVES})\s+){{0,4}}(?:{_TAIL_MEDIA}|{_STYLE_WORDS})"
    r"|(?:in\s+)?(?:4k|8k|16k|hd|uhd|hdr|full hd|ultra[- ]?hd)"
    r"(?:\s+(?:resolution|quality|uhd|hdr))?"
    r"|(?:in\s+)?(?:very\s+|super\s+|ultra[- ]?)?(?:high|best|good|top|highest)[- ]"
    r"(?:quality|res(?:olution)?|definition|detail)"
    r"|(?:highly|very|ultra|extremely|intricately|insanely|hyper)[- ]?(?:detailed|realistic|sharp)"
    r"|(?:intricate|fine|sharp|rich)\s+details?|sharp(?:\s+focus)?|in\s+focus|masterpiece|detailed"
    r"|(?:trending|featured)\s+on\s+\w+|artstation|deviantart|unsplash|national geographic"
    r"|octane(?:\s+render)?|unreal(?:\s+engine)?(?:\s+\d)?|blender|ray[- ]tracing|vray|cgi"
    r"|(?:(?:cinematic|studio|dramatic|soft|natural|volumetric|warm|golden hour|rim|ambient|moody"
    r"|beautiful|global|neon|bright|hard|harsh|diffused|professional|perfect|low[- ]key)\s+)+"
    r"(?:light(?:s|ing)?|illumination)|golden hour|backlit|lighting|cinematic"
    r"|bokeh|(?:shallow\s+)?depth of field|dof"
    r"|\d+\s?mm(?:\s+(?:lens|film|photo(?:graph)?))?|f/?\d(?:[.,]\d)?"
    r"|ultra|shot\s+(?:on|with)\s+[^,.]+|rendered\s+(?:in|with|by)\s+[^,.]+"
    r"|(?:isometric|top|side|front|aerial|close[- ]?up|wide|low[- ]angle"
    r"|(?:from\s+a\s+)?(?:bird|worm)['\u2019]?s[- ]eye)\s+(?:view|angle|shot)"
    r"|(?:beautiful|perfect|stunning|dynamic)\s+composition|(?:oil|acrylic)\s+on\s+canvas"
    r"|award[- ]winning|stock|wallpaper|background blur|blurred background|photorealism"
    r"|(?:concept|digital|pixel|vector|line|fan)\s+art|in\s+(?:the\s+)?style\s+of\s+[^,.]+"
    r"|by\s+(?!the\b|an?\b)[^,.]+|please|thanks|thank you"
    r"|[\w' -]*\bstyle|cyberpunk|steampunk|vaporwave|synthwave|impressionism|surrealism|art deco"
    r"|isometric|low[- ]poly|minimalism|(?:pastel|vibrant|vivid|muted) colou?rs"
)
_TAIL = re.compile(rf"(?:and\s+)?(?:{_STYLE_TAIL})", re.I)
_SEPARATOR = re.compile(r"[,;:|(\[]|\.(?!\d)|\s[-\u2013\u2014]+\s")
_BARE_TAIL = re.compile(
    r"\s+(?:(?:in\s+)?(?:4k|8k|uhd|hdr|hd)(?:\s+(?:resolution|quality))?|please"
    r"|in\s+(?:high|best)[- ](?:quality|resolution|definition)"
    r"|in\s+(?:an?\s+|the\s+)?(?:[\w-]+\s+){1,3}style|in\s+the\s+style\s+of\s+[\w\s.'-]+"
    rf"|as\s+an?\s+(?:(?:{_ADJECTIVES})[\s,]+){{0,6}}(?:{_TAIL_MEDIA})"
    r"|(?P<medium>(?:stock\s+)?(?:photo|photograph|photography|illustration|artwork|wallpaper)))[\s.!]*$",
    re.I,
)
# With other adjectives: `a crisp photo of`.
_OTHER_LEAD = re.compile(
    r"(?:an?|the)\s+((?:[\w'-]+,?\s+){1,4})(?:photo(?:graph)?|picture|image|painting|drawing|sketch"
    r"|illustration|render(?:ing)?|artwork)\s+of\s+",
    re.I,
)
_THINGS = frozenset(("framed", "torn", "faded", "family", "missing", "giant", "wall"))
_FLAGS = re.compile(r"\s+--?[a-z]+(?:\s+[\w:.]+)?$", re.I)  # --ar 16:9
# A photo with one of these before it is a thing: "a wall with a photo", "a family photo".
_KEEP_PHOTO = re.compile(
    r"(?:^|\s)(?:an?|the|of|with|in|on|and|or|her|his|its|their|my|our|your|this|that|family|wedding"
    r"|school|class|group|team|passport|profile|id|baby|holiday|vacation|framed|old|vintage|torn"
    r"|small|large|faded|black|white|colou?r|taking|takes|take|holding|holds|looking|at)$",
    re.I,
)
_MAX_ROUNDS = 24
_MAX_CHARACTERS = 200  # of a lead-in or a tail
_ENDS = " \t.,;!?)]"


def strip_wording(text: str) -> str:
    """A text without its lead-ins and tails, however many; as it is where nothing else is left."""
    bare = text.strip()
    for _ in range(_MAX_ROUNDS):
        shorter = _strip_once(bare)
        if not any(letter.isalnum() for letter in shorter):
            return bare
        if shorter == bare:
            break
        bare = shorter
    return bare


def _strip_once(text: str) -> str:
    head = text[:_MAX_CHARACTERS]
    lead = _LEADS.match(head) or _other_lead(head)
    if lead:
        text = text[lead.end() :].lstrip()
    at = max(len(text) - _MAX_CHARACTERS, 0)
    return text[:at] + _without_tail(text[at:])


def _without_tail(text: str) -> str:
    text = _FLAGS.sub("", text)
    whole = text.rstrip(_ENDS)
    separators = list(_SEPARATOR.finditer(whole))
    if separators and _TAIL.fullmatch(whole[separators[-1].end() :].strip()):
        text = text[: separators[-1].start()].rstrip()
    tail = _BARE_TAIL.search(text)
    if tail and not (tail["medium"] and _KEEP_PHOTO.search(text[: tail.start()])):
        text = text[: tail.start()]
    return text


def _other_lead(text: str) -> re.Match[str] | None:
    """A lead-in with adjectives that no list knows; not "a man painting a picture of"."""
    lead = _OTHER_LEAD.match(text)
    words = lead[1].lower().replace(",", "").split() if lead else []
    return None if any(word in _THINGS or _is_of_sentence(word) for word in words) else lead


def _is_of_sentence(word: str) -> bool:
    is_known = lexicon().knows(word) and word not in lexicon().attributes
    return is_known and not re.fullmatch(_ADJECTIVES, word)
