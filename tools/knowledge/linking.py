"""Which line led to which: errors that are only the effect of what was said shortly before."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from graph.domain import RootCause
from tools.diagnosis import Case
from tools.evidence import Evidence, Piece
from tools.evidence_lines import LogLine
from tools.evidence_text import words_of
from tools.knowledge.ranking import COMMON, WITHIN, Candidate, Hit, lower, raised

Candidates = list[Candidate]
Rule = Callable[[Case, Evidence, Candidates], Candidates]
SAID = 4  #: lines before the failure that may tell what it stumbled over
LEAD = 0.06
_KEY = re.compile(
    r"^(?:\w+\.)*KeyError: ['\"]([^'\"\n]{1,80})['\"]|\bkey not found: [\":]([\w .-]{1,80})\"? \(KeyError\)"
)
_LISTED = re.compile(
    r"(?i)\b(?:keys|columns|fields|header|headers|attributes|names)\b[^\n]{0,25}[:=(\[{]"
    r"|\bheaders? \w+(?:[|;,] ?\w+){2,}"
)
#: what the entries call an asking for a key that is not there
_OF_A_KEY = frozenset({RootCause.CODE_ERROR, RootCause.MISSING_DATA})
#: names printed and nothing else: `['t2m', 'lat']`
_BARE = re.compile(
    r"^\W{0,3}(?:\[|dict_keys\(\[|Index\(\[|\{)'[^'\n]{1,60}'(?:, ?'[^'\n]{1,60}')*[\])}]{1,2}\W*$"
)
_EMPTY = re.compile(r"(?:[:=]|->) ?(?:\{\}|\[\]|\(\)|None|null)[\s.,)}\]]*$")
_CAME = re.compile(
    r"(?i)\b(?:keys|columns|fields|attributes)\b[^\n]{0,15}[:=] ?[\[{(]?[\"'\w]+(?:, ?[\"'\w]+)+"
)
_QUOTED = re.compile(r"['\"]([\w .-]{1,60})['\"]")
_NOTHING = re.compile(
    r"(?i)(?:[:=]\s*|\breturned |\bgot |\bis |\bover |\bgave )(?:None|null|nothing|nil|empty|\[\]"
    r"|\{\}|\(\)|'')"
    r"[\s.)\]]*$|\b(?:no|zero|0) [\w-]+(?: [\w-]+)? (?:for|in|on|from|at|since|between|after|found"
    r"|left|returned)\b"
    r"|\b(?:returned|found|got|received|fetched|yielded|delivered) (?:nothing|none|no [\w-]+|0\b)"
    r"|\bis empty\b|\b(?:\w*count|total|hits|matches|matched|found|rows|records|items|files|messages"
    r"|objects)[ :=>-]{1,4}0\s*$|[:=>] ?(?:0|no|zero) [a-z][\w-]*\s*$"
)
_STUMBLED = re.compile(
    r"NoneType|IndexError|StopIteration|ZeroDivisionError|empty (?:sequence|iterable)|has no len|not iterable"
    r"|not subscriptable|out of range|division by zero"
)
_MIXED = re.compile(
    r"TypeError: (?:unsupported operand type\(s\) for|can only concatenate str"
    r"|'[<>=]+' not supported between|must be"
    r" real number|bad operand type|float\(\) argument|int\(\) argument)[^\n]*\bstr\b"
    r"|TypeError: can only concatenate"
)
_SHOWN = re.compile(r"\b\w+\s*[=:]\s*(['\"])(?!\d[\d.,]*\1|\1)[^'\"\n]{1,40}\1")
LISTS = 12  #: lines before the failure that may list what came
A_HABIT = 3  #: lists that show what is usual, and what came last
#: names with their sizes: `{'time': 24, 'x': 11}`
_COUNTED = re.compile(r"\{'[\w .-]{1,60}': ?\d+(?:, ?'[\w .-]{1,60}': ?\d+)*\}")
_STUMBLES_OVER_NAMES = frozenset({RootCause.CODE_ERROR, RootCause.TYPE_MISMATCH, RootCause.MISSING_DATA})
#: names that an error lists: `no data for PL, AT, BE`
_COMMAS = re.compile(r"\b\w[\w./-]{1,40}(?:, \w[\w./-]{1,40})+")
_NAMED = re.compile(r"['\"](\w[\w./:@ -]{1,60})['\"]")
MOST_NAMES = 12  #: of them that are looked for
_SUM = frozenset({RootCause.MISSING_DATA, RootCause.EXTERNAL_JOB_FAILED})
_VAGUE = re.compile(
    r"(?i)not reachable|unreachable|could not (?:connect|be reached)|(?:connection|connect|session"
    r"|handshake|open\w*)"
    r"[^\n]{0,60}(?:failed|error|refused|lost|not be opened)|(?:failed|unable|cannot) to (?:connect"
    r"|open|reach)|can(?:.t|not) (?:contact|connect|reach)\b"
)
_WRAPS = frozenset(
    {RootCause.NETWORK_UNREACHABLE, RootCause.UPSTREAM_UNAVAILABLE, RootCause.EXTERNAL_JOB_FAILED}
)
_BEHIND = (RootCause.TLS_ERROR, RootCause.AUTHENTICATION_FAILED)
LAST_WORDS = 4  #: lines of a child in which a complaint is looked for
A_STATE = 3  #: words that a mere state may have
PASSED_OVER = 0.3  #: lines below this weight were got over
UNREAD = 0.7  #: what a bare exit status counts when the child complained in words unknown here
_COMPLAINT = re.compile(
    r"(?i)\b(?:not(?! yet| ready)|no|cannot|can't|isn't|doesn't|don't|won't|unknown|invalid|missing|bad"
    r"|unable|unrecogni[sz]ed|unsupported|undefined|reject\w*|(?<!went )wrong|incompatible|violat\w*"
    r"|\w*plausib\w*|attempt to|illegal|mismatch|corrupt\w*|unexpected|must|required|denied|refus\w*"
    r"|never|gave up|giving up|still waiting"
    r"|too (?:many|long|large|big|small|few)|nicht|kein\w*|zu viele|ung\w+ltig\w*|fehlt|impossible"
    r"|introuvable|invalide|manquant\w*|inv[aá]lid[oa]|falta|desconocid[oa]|não)\b|n't\b"
    r"|失敗|エラー|ません|错误|失败|无法"
    r"|(?i:\b(?:requires?|halted|exceed\w*|duplicat\w*|abend\w*|file status \d\d|unexpectedly)\b)"
    r"|\b[A-Z]{3,6}\d{3,5}[AEW]\b"
)
_CALLED = re.compile(
    r"(?:[Ee]rror|ERROR|[Ee]xception|FATAL|[Ff]atal|panic|FEHLER|ERREUR)\b[^:\n]{0,40}: *(\S[^\n]*)"
)
_HOW_IT_ENDED = re.compile(
    r"(?i)^\W*(?:[\w./-]++\W++){0,6}?"  # possessive: a line of dashes can be cut in many ways
    r"(?:fail\w*(?! to\b)|exit\w*|abort\w*|stopp\w*|ended|status|finished|completed|code|see)\b"
)
_ELSEWHERE = re.compile(
    r"(?i)exit|return(?:ed)? (?:code|status|non)|status|state|finished: (?-i:FAIL|ABORT|CANCEL|ERROR)|\brc\b"
    r"|errorMessage|\b(?:job|run|build|batch|process|execution)\b"
)
REASON_LINES = 15
REASON = 0.8  #: least strength of an entry that counts as the reason of an effect
_SAME_REPORT = 8  #: lines after an effect in which the same program may add why: R's warnings, a footer
#: what clients and programs say when what they were given is nothing, broken or cut off
_EFFECT = re.compile(
    r"(?i)cannot read propert|\bof (?:undefined|null)\b|NoneType|NilClass|\bfor nil\b|null ?pointer"
    r"|null reference|instance of an object|null-valued expression|nil pointer|not iterable|over null"
    r"|not subscriptable|has no len|undefined value|\bon null\b|offset on|out of bounds|out of range"
    r"|of length zero|cannot open the connection|cannot read from connection|usage error"
    r"|[Bb]locked connection|transaction is aborted|FailedSqlTransaction|PendingRollback|25P02"
    r"|KilledWorker|workers? (?:process )?died|BrokenProcessPool|terminated abruptly|unexpectedly closed"
    r"|please run connect\(\) first|not connected to (?:a |the )?server"
    r"|protocol data stream|read error|broken ?pipe|EPIPE|premature|unexpected (?:end|eof)|wrote only"
    r"|tag mismatch|mismatched tag|short write|write (?:error|failed)|truncated|JSONDecode|JSONParse"
    r"|unexpected token|expecting value"
    r"|looking for beginning of value|no JSON|not valid JSON|parse error|division by (?:zero|0\b)"
    r"|divided by 0"
    r"|undefined (?:array key|index|offset|property)|invalid literal for"
    r"|KeyError|IndexError|StopIteration|no element|nothing to (?:do|process|load)"
    r"|from versions: none|no matching distribution|can(?:'t|not) open file|No such file or directory"
    r"|No module named|cannot find module|no password supplied"
    r"|(?:localhost|127\.0\.0\.1)[^\n]{0,60}refused|ECONNREFUSED (?:127\.0\.0\.1|localhost|::1)"
    r"|(?:input|file|frame|table) is empty|rows loaded: 0|empty (?:sequence|iterable)|has no data\b"
    r"|\bno [a-z]+ (?:for|from|of) [a-z]"
    r"|\b(?:0|no|zero) (?:rows|records|documents|files|items|objects|messages|entries|events|lines)\b"
    r"|cannot access local variable|referenced before assignment"
    r"|'\w*(?:Error|Exception|Fault)' object has no attribute"
    r"|\bexpected \d[^\n]{0,60}\b(?:found|got|received|have|only) (?:0|none|no)\b"
    r"|\b(?:0|none|no|zero) of (?:the )?\d+ [a-z]+\b"
)
_NO_REASON = frozenset(
    {RootCause.CODE_ERROR, RootCause.TYPE_MISMATCH, RootCause.EXTERNAL_JOB_FAILED, RootCause.QUERY_ERROR}
)
#: causes that are a reason in themselves, even in the words of a write that failed
_NAMES_ITSELF = frozenset({RootCause.STORAGE_EXHAUSTED, RootCause.OUT_OF_MEMORY, RootCause.PERMISSION_DENIED})
#: a session that refuses every statement after the one that failed
_REFUSES_ALL = re.compile(r"(?i)transaction is aborted|FailedSqlTransaction|PendingRollback|25P02")
_COMES_OF_IT = WITHIN | {RootCause.MISSING_DATA}
_FAILED = frozenset({RootCause.CODE_ERROR, RootCause.EXTERNAL_JOB_FAILED})
_TURNS_AWAY = frozenset({RootCause.AUTHENTICATION_FAILED, RootCause.PERMISSION_DENIED, RootCause.TLS_ERROR})
_OF_ACCESS = _TURNS_AWAY | {RootCause.NETWORK_UNREACHABLE, RootCause.UPSTREAM_UNAVAILABLE}
_REMOTE_STATE = re.compile(
    r"(?i)\b(?:final|terminal|end)?[ _-]?(?:state|status)\b|\b(?:job|build|run|execution|batch|query)\b"
    r"[^\n]{0,60}\b(?:failed|failure|unsuccessful|error)"
)
#: the last state of something that is polled
_ENDED = re.compile(r"(?i:\b(?:state|status)\b)\W{0,4}(?:FAILED|FAILURE|ERROR|ERRORED|ABORTED|KILLED)\b")
_STARTED = re.compile(
    r"(?i)\b(?:job|build|run|execution|query|batch|step|pipeline)\b[^\n]{0,60}\b(?:submitted|started|executed"
    r"|triggered|created|accepted|running|queued)|\bpolling\b"
    r"|\bwaiting for [^\n]{0,40}\b(?:complete|finish|end)"
)
BEHIND_WEIGHT = 0.42  #: least weight of the line that tells why a connection failed


def said_before(evidence: Evidence, count: int = SAID) -> list[LogLine]:
    """The last things said before the failure, in the words of the work itself."""
    begin = evidence.chain.first if evidence.chain else evidence.end
    said = [line for line in evidence.order if line.number < begin and evidence.says(line)]
    return said[-count:]


def _keys_shown(case: Case, evidence: Evidence, candidates: Candidates) -> Candidates:
    """The log lists the keys or columns that came, and the one that was asked for is not among them."""
    top = candidates[0] if candidates else None
    if top is None or top.best is None or top.cause not in _OF_A_KEY:
        return candidates
    match = _KEY.search(top.best.piece.text)
    if match is None:
        return candidates
    name = match[1] or match[2]
    listed = [line for line in said_before(evidence) if _LISTED.search(line.text) or _BARE.match(line.text)]
    key = re.compile(rf"(?<!\w){re.escape(name)}(?!\w)")
    came = [line for line in listed if not key.search(_newest(line.text))]
    if not came:
        return candidates
    return raised(
        candidates,
        RootCause.SCHEMA_DRIFT,
        max(0.88, top.score + LEAD),
        f"line {came[-1].number} lists what came, without {name!r}",
    )


def _keys_changed(case: Case, evidence: Evidence, candidates: Candidates) -> Candidates:
    """Something was not there, and the log itself sets the keys that came beside those that came before."""
    top = candidates[0] if candidates else None
    if top is None or top.best is None or top.cause not in (RootCause.CODE_ERROR, RootCause.TYPE_MISMATCH):
        return candidates
    if not _EFFECT.search(_message(top.best.piece)):
        return candidates
    for line in reversed(said_before(evidence)):
        now = _newest(line.text)
        lost = set(_QUOTED.findall(line.text[len(now) :])) - set(_QUOTED.findall(now))
        if lost and _LISTED.search(now) and _QUOTED.search(now):
            why = f"line {line.number} lists what came, without {min(lost)!r}"
            return raised(candidates, RootCause.SCHEMA_DRIFT, max(0.88, top.score + LEAD), why)
    return candidates


def _other_list(case: Case, evidence: Evidence, candidates: Candidates) -> Candidates:
    """What came last has other names than all that came before it and went well."""
    top = candidates[0] if candidates else None
    if top is None or top.best is None or top.why or top.cause not in _STUMBLES_OVER_NAMES:
        return candidates
    said = said_before(evidence, LISTS) if evidence.chain is not None else []
    lists = (line for line in said if _LISTED.search(line.text) or _COUNTED.search(line.text))
    listed = [(line.number, names) for line in lists if (names := frozenset(_NAMED.findall(line.text)))]
    if len(listed) < A_HABIT or listed[-1][0] < said[-SAID:][0].number:
        return candidates
    (_, usual), *others, (line, last) = listed[-A_HABIT:]
    if any(names != usual for _, names in others) or not (usual - last and last - usual):
        return candidates
    score = max(0.88, top.score + LEAD)
    return raised(candidates, RootCause.SCHEMA_DRIFT, score, f"line {line} lists other names than before")


def _key_unlisted(case: Case, evidence: Evidence, candidates: Candidates) -> Candidates:
    """Something was nothing: the log lists the keys that came, and then names one that is not among them."""
    top = candidates[0] if candidates else None
    if top is None or top.best is None or top.cause not in (RootCause.CODE_ERROR, RootCause.TYPE_MISMATCH):
        return candidates
    if not _STUMBLED.search(_message(top.best.piece)):
        return candidates
    listed: LogLine | None = None
    for line in said_before(evidence):
        asked = _QUOTED.findall(line.text) if listed is not None else []
        absent = [key for key in asked if listed is not None and key not in listed.text]
        if listed is not None and absent:
            why = f"line {listed.number} lists what came, without {absent[0]!r}"
            return raised(candidates, RootCause.SCHEMA_DRIFT, max(0.88, top.score + LEAD), why)
        listed = line if _CAME.search(line.text) else listed
    return candidates


def _newest(text: str) -> str:
    """What came now; not what a line adds about before."""
    return re.split(r"(?i)yesterday|before|expected|was:|previous|last (?:run|time)", text)[0]


def _nothing_shown(case: Case, evidence: Evidence, candidates: Candidates) -> Candidates:
    """The task stumbled over nothing, and the log shows where nothing came from."""
    top = candidates[0] if candidates else None
    if top is None or top.best is None or top.cause not in (RootCause.CODE_ERROR, RootCause.TYPE_MISMATCH):
        return candidates
    stumbled = _STUMBLED.search(_message(top.best.piece)) is not None
    if not stumbled and _KEY.search(top.best.piece.text) is None:
        return candidates
    nothing = _NOTHING if stumbled else _EMPTY  # a key may be missing from what came, too
    empty = next((line for line in reversed(said_before(evidence)) if nothing.search(line.text)), None)
    if empty is None:
        return candidates
    candidates = lower(candidates, RootCause.CODE_ERROR, 0.9)
    ended = next(
        (x for x in said_before(evidence) if x.number < empty.number and _ENDED.search(x.text)), None
    )
    if ended is not None:
        why = f"line {ended.number} tells how it ended, before nothing came of it"
        return raised(candidates, RootCause.EXTERNAL_JOB_FAILED, max(0.86, top.score + LEAD), why)
    return raised(
        candidates,
        RootCause.MISSING_DATA,
        max(0.86, top.score + LEAD),
        f"line {empty.number} shows that nothing came",
    )


def _value_shown(case: Case, evidence: Evidence, candidates: Candidates) -> Candidates:
    """Text met a number, and the log shows the value that is none."""
    top = candidates[0] if candidates else None
    if top is None or top.best is None or top.cause is not RootCause.CODE_ERROR:
        return candidates
    if not _MIXED.search(top.best.piece.text):
        return candidates
    shown = next((line for line in reversed(said_before(evidence)) if _SHOWN.search(line.text)), None)
    if shown is None:
        return candidates
    why = f"line {shown.number} shows the value that is no number"
    return raised(candidates, RootCause.TYPE_MISMATCH, top.score + LEAD, why)


def _why_unreachable(case: Case, evidence: Evidence, candidates: Candidates) -> Candidates:
    """`Could not connect` wraps what the handshake or the login said before."""
    top = candidates[0] if candidates else None
    if top is None or top.best is None or top.cause not in _WRAPS:
        return candidates
    best = top.best
    known = best.entry.strength > 0.95 and not best.of_class
    told_on = best.piece.raised is not None and best.piece.raised.of_user
    if known and not (_VAGUE.search(best.piece.text[:300]) or told_on):
        return candidates
    for other in candidates[1:]:
        near = [
            hit
            for hit in other.hits
            if 0 < _begin(evidence, best) - hit.piece.line <= 15
            and hit.piece.weight >= BEHIND_WEIGHT
            and hit.entry.strength >= 0.6
        ]
        behind = other.cause in _BEHIND or (told_on and other.cause is RootCause.CAPACITY_UNAVAILABLE)
        if behind and near and not near[0].piece.recovered:
            why = f"line {near[0].piece.line} tells why it could not connect"
            return raised(candidates, other.cause, top.score + LEAD, why)
    return candidates


def _complained(case: Case, evidence: Evidence, candidates: Candidates) -> Candidates:
    """A job that ended in a complaint nobody here can read is not one that says no more: less sure."""
    top = candidates[0] if candidates else None
    if top is None or top.cause is not RootCause.EXTERNAL_JOB_FAILED or top.why:
        return candidates
    known = {hit.piece.line for c in candidates for hit in c.hits if hit.entry.strength > 0.45}
    known |= {piece.line for piece in evidence.pieces if piece.recovered or piece.weight < PASSED_OVER}
    said = said_before(evidence, LAST_WORDS)
    thrown = top.best.piece.raised if top.best is not None else None
    if thrown is not None and _tells_why(thrown.message):
        return lower(candidates, RootCause.EXTERNAL_JOB_FAILED, UNREAD)
    if any(line.number not in known and complains(words_of(line.text, counters=True)) for line in said):
        return lower(candidates, RootCause.EXTERNAL_JOB_FAILED, UNREAD)
    return candidates


def _tells_why(message: str) -> bool:
    """After its state, a message goes on with a reason that nobody here can read."""
    reason = message.partition("\n")[0].partition(": ")[2]
    return len(reason.split()) > A_STATE and _COMPLAINT.search(reason) is not None


def complains(text: str) -> bool:
    """A reason in words, beyond telling that something failed."""
    reason = _CALLED.search(text)
    return bool(_COMPLAINT.search(text) or (reason and not _HOW_IT_ENDED.search(reason.group(1))))


def _own_words(case: Case, evidence: Evidence, candidates: Candidates) -> Candidates:
    """The task's own code says that something failed: that names no job submitted elsewhere."""
    top = candidates[0] if candidates else None
    if top is None or top.best is None or top.cause is not RootCause.EXTERNAL_JOB_FAILED or top.why:
        return candidates
    thrown = top.best.piece.raised
    if thrown is None or not thrown.of_user or _ELSEWHERE.search(thrown.message):
        return candidates
    return lower(candidates, RootCause.EXTERNAL_JOB_FAILED, UNREAD)


def _came_of(case: Case, evidence: Evidence, candidates: Candidates) -> Candidates:
    """What code, shells and transfers stumble over in the end was often named a few lines before."""
    top = candidates[0] if candidates else None
    text = "\n".join(_message(piece) for piece in _report(top)) if top is not None else ""
    if not _EFFECT.search(text) or (top is not None and top.cause in _NAMES_ITSELF):
        return candidates
    never = _FAILED if _REFUSES_ALL.search(text) else _NO_REASON
    if top is not None and top.cause is RootCause.CODE_ERROR:
        never = _FAILED  # of two that stumbled, the first is nearer to the reason
    return _by_reason(evidence, candidates, never, after=_SAME_REPORT)


def _led_to(case: Case, evidence: Evidence, candidates: Candidates) -> Candidates:
    """The reason is found already, and what stumbled over it a few lines later is no rival to it."""
    top = candidates[0] if candidates else None
    if top is None or top.best is None or top.why or top.cause in _NO_REASON:
        return candidates
    reason = top.best.piece
    stands = reason.errorish and not (reason.recovered or reason.aside or reason.final)
    if not stands or reason.kind != "line" or top.best.entry.strength < REASON:
        return candidates
    for other in candidates[1:]:
        effect = other.best.piece if other.best is not None else None
        if effect is None or other.cause not in _COMES_OF_IT or not _EFFECT.search(_message(effect)):
            continue
        near = 0 < effect.line - reason.line <= REASON_LINES
        if near and not evidence.went_well_between(reason.line, effect.line):
            return raised(candidates, top.cause, top.score, f"line {effect.line} stumbled over it")
    return candidates


def _turned_away(case: Case, evidence: Evidence, candidates: Candidates) -> Candidates:
    """An answer that never came, after the server told why it would not answer."""
    top = candidates[0] if candidates else None
    if top is None or top.best is None or top.cause is not RootCause.TIMEOUT:
        return candidates
    return _by_reason(evidence, candidates, frozenset(RootCause) - _TURNS_AWAY, after=0)


def _by_reason(
    evidence: Evidence, candidates: Candidates, never: frozenset[RootCause], *, after: int
) -> Candidates:
    """Raise the cause of the nearest specific line that stands open when the effect shows."""
    effect = _shows_first(evidence, candidates[0])
    same = {hit.entry.name for c in candidates for hit in c.hits if _of_the_end(hit, candidates[0])}
    found: list[tuple[float, int, RootCause]] = []
    for other in candidates[1:]:
        for hit in other.hits if other.cause not in never else ():
            piece, ahead = hit.piece, effect - hit.piece.line
            stands = not (piece.recovered or piece.aside or piece.final) and piece.errorish
            stands = stands and piece.weight >= BEHIND_WEIGHT
            near = 0 < ahead <= REASON_LINES or 0 < -ahead <= after
            # That a wait ended is no reason of what was there before it ended.
            late = other.cause is RootCause.TIMEOUT and piece.line > effect
            specific = stands and near and hit.entry.strength >= REASON and hit.entry.name not in same
            specific = specific and not late
            if specific and not evidence.went_well_between(piece.line, effect):
                found.append((hit.entry.strength, piece.line, other.cause))
    if not found:
        return candidates
    _, line, cause = max(found, key=lambda told: told[:2])
    why = f"line {line} tells what led to it"
    return raised(candidates, cause, max(candidates[0].score + LEAD, REASON), why)


def _of_the_end(hit: Hit, top: Candidate) -> bool:
    """A line that repeats what was raised in the end tells no reason for it."""
    return top.best is not None and hit.piece is top.best.piece


def _begin(evidence: Evidence, hit: Hit | None) -> int:
    """The line at which the effect shows first: its chain's, when it was raised."""
    chain, piece = evidence.chain, hit.piece if hit is not None else None
    if piece is None or piece.raised is None:
        return piece.line if piece is not None else 0
    return chain.first if chain is not None and piece.raised in chain.raised else piece.raised.first


def _shows_first(evidence: Evidence, top: Candidate) -> int:
    return min([_begin(evidence, top.best), *(piece.line for piece in _report(top) if piece.raised is None)])


def _report(top: Candidate) -> list[Piece]:
    """The best piece, and what the same entry knows of the lines just before it."""
    best = top.best
    if best is None or best.piece.raised is not None:
        return [] if best is None else [best.piece]
    same = (hit.piece for hit in top.hits if hit.entry.name == best.entry.name)
    return [best.piece, *(one for one in same if 0 < best.piece.line - one.line <= REASON_LINES)]


def _message(piece: Piece) -> str:
    return piece.text.partition("\n@")[0]


def _named_again(case: Case, evidence: Evidence, candidates: Candidates) -> Candidates:
    """Code sums up which of many things failed: what was complained of with each of their names is why."""
    thrown = evidence.chain.raised[-1] if evidence.chain is not None else None
    if thrown is None or not thrown.of_user:
        return candidates
    top = candidates[0] if candidates else None
    if top is not None and (top.why or not _sums_up(top)):
        return candidates
    names = _names(thrown.message)
    if not names:
        return candidates
    told: dict[RootCause, tuple[float, int]] = {}
    for other in (one for one in candidates if one.cause is not RootCause.EXTERNAL_JOB_FAILED):
        for hit in other.hits:
            piece = hit.piece
            before = piece.kind == "line" and piece.errorish and piece.line < thrown.first
            if not before or hit.worded or hit.entry.strength < REASON:
                continue
            named = [name for name in names if name.search(piece.text)]
            if named and not all(_well_after(evidence, name, piece.line, thrown.first) for name in named):
                told[other.cause] = max(told.get(other.cause, (0.0, 0)), (hit.entry.strength, piece.line))
    if not told:
        return candidates
    cause, (_, line) = max(told.items(), key=lambda one: one[1])
    score = max(REASON, top.score + LEAD if top is not None else 0.0)
    return raised(candidates, cause, score, f"line {line} tells of one of those that the error names")


def _sums_up(top: Candidate) -> bool:
    """Nothing but the sum of it is known, or that there was nothing."""
    best = top.best
    return best is None or not best.piece.final or best.entry.strength <= COMMON or top.cause in _SUM


def _well_after(evidence: Evidence, name: re.Pattern[str], first: int, last: int) -> bool:
    """What the name stands for went well after the complaint."""
    lines = (x.number for x in evidence.order if first < x.number < last and name.search(x.text))
    return any(evidence.went_well_between(number - 1, number + 1) for number in lines)


def _names(message: str) -> list[re.Pattern[str]]:
    """What a message lists: quoted, or divided by commas; as patterns that find them as words."""
    listed = dict.fromkeys(_NAMED.findall(message))
    if (rest := _COMMAS.search(message)) is not None:
        listed |= dict.fromkeys(part.strip() for part in rest[0].split(","))
    found = []
    for name in list(listed)[:MOST_NAMES]:
        parts = [re.escape(part) for part in re.split(r"[/:. -]+", name) if part]
        if parts:
            found.append(re.compile(r"(?<!\w)" + r"\W{1,3}".join(parts) + r"(?!\w)"))
    return found


def _started_after(case: Case, evidence: Evidence, candidates: Candidates) -> Candidates:
    """A job that was started after the complaint was not stopped by it; its own state is what is known."""
    top = candidates[0] if candidates else None
    ended = next((c for c in candidates if c.cause is RootCause.EXTERNAL_JOB_FAILED), None)
    if top is None or top.best is None or ended is None or top is ended or top.best.piece.final:
        return candidates
    end = ended.best
    if top.cause not in _OF_ACCESS or end is None or not _REMOTE_STATE.search(_message(end.piece)):
        return candidates
    between = [x for x in evidence.order if top.best.piece.line < x.number < end.piece.line]
    between = [line for line in between if evidence.says(line)]
    started = next((line for line in between if _STARTED.search(line.text)), None)
    if started is None:
        return candidates
    why = f"line {started.number} shows that the job was started after it"
    return raised(candidates, ended.cause, top.score + LEAD, why)


RULES: Sequence[Rule] = (
    _complained,
    _own_words,
    _keys_shown,
    _keys_changed,
    _other_list,
    _key_unlisted,
    _nothing_shown,
    _value_shown,
    _why_unreachable,
    _came_of,
    _led_to,
    _turned_away,
    _named_again,
    _started_after,
)
