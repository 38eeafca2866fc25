"""What a line looks like at a glance: an error, a retry, a success, an end. One linear pass answers all."""

from __future__ import annotations

from enum import IntEnum

import re2

GLANCE = 1_000  # characters of a line


class Mark(IntEnum):
    """A trait of a line."""

    ERRORISH = 0  #: speaks of something wrong
    RETRYING = 1  #: something is tried again or passed over
    SUCCESS = 2
    NOT_SUCCESS = 3  #: the word success in a negation
    END = 4  #: the way Airflow tells that the task ended badly
    NOISE = 5  #: Airflow's own frame around the work
    PASSED = 6  #: the line itself tells that the work goes on without what went wrong
    BLUNT = 7  #: calls itself an error, whatever its level
    NONE_BAD = 8  #: may hold a counter of bad things that stands at zero
    RECOVERS = 9  #: the line ends in what was done instead: ", rebuilding", ", using default"
    GIVES_UP = 10  #: and in this case nothing was: ", exiting", "fallback failed too"
    CLOSING = 11  #: leaving: rolling back, closing, what was kept
    ASIDE = 12  #: about telling, measuring or cleaning up, beside the work itself
    FINE = 13  #: something was done or answered well
    STACK = 14  #: part of a stack or of what is printed after it: no work of its own


_CODE_ENDS = "ERROR|EXCEPTION|DENIED|FAILED|FAILURE|REFUSED|EXCEEDED|EXHAUSTED|INVALID|EXPIRED|NOT_FOUND"
_INSTEAD = (
    r"re-?(build|creat|generat|comput|download|fetch|load|read|start|connect|initiali[sz]|index|queu|submit"
    r"|schedul|mak|open|sum|us)(ing|ed)?|re-?setting|re-set|reset (it|the|to)|retrying"
    r"|retry (in|after|with|later|at|once|again)"
    r"|us(es?|ing|ed) (the |a |an |its "
    r"|our )?(\w+ )?(default"
    r"|cached?|previous|last|local|built-?in|fallback|stale|slower|old|embedded|bundled|copy|replica"
    r"|secondary)"
    r"|skip(ping|ped)?|ignor(ing|ed?)|continu(ing|ed?)|proceed(ing|ed)?|carry(ing)? on|moving on|going on"
    r"|fall(ing|s)? back|fell back|fallback|default(ing|s|ed)? to|assum(ing|ed)|tolerat(ing|ed)"
    r"|disabl(ing|ed)"
    r"|(will|to) be (re-?)?(created|built|generated|fetched|ignored|skipped|retried)|warm(ing)? (it )?up"
    r"|creat(ing|ed) (it|one|a new|new|an empty)|work(ing)? without|running without|not fatal|non-?fatal"
    r"|degraded mode|treat(ing|ed) (it )?as|substitut(ing|ed)|switch(ing|ed) to"
    r"|keep(ing|s)? (the )?(old|last)"
    r"|never ?mind|harmless|no action needed|nothing to worry"
    r"|(row |value )?(set|coerced|nulled|changed|converted|rounded|truncated|clipped|reset) to "
    r"(null|none|nan|0|zero|empty|default|the default)"
    r"|(filled|padded|replaced) (with|by)|row (dropped|skipped)|(row|line|record)s? (is |was "
    r"|are )?(left out|dropped)"
)
#: a clause that tells what was done about it, after a comma, a dash or a bracket
_DONE_ABOUT_IT = (
    r"(, |; | --? |[\x{2013}\x{2014}] |\(|\. )(so |and |but |then |now |its? |the |their |we )?([\w-]+ )?"
    r"(was |were |is |are |has been )?"
    r"((got|took|take|made|opened|issued|fetched|obtained|requested|chose|picked) "
    r"(a |an |the )?(new|fresh|other|another|next)\b"
    r"|going (on )?without|done without|waited \d|slept \d|paused \d|read from|served from|taken from"
    r"|answered by"
    r"|re-?(assigned|distributed|scheduled|routed|placed|balanced|spawned|issued|newed|freshed)"
    r"|taken over|moved (on )?to"
    r"|(raised|increased|enlarged|doubled|extended|lowered|reduced|halved) to|freed \d|cleaned|purged"
    r"|then (a )?(200|ok|fine|passed|worked|succeeded)|used instead$"
    r"|(default|fallback|cached?|previous|last|local|stale|copy|built-?in|old|own) (value |one |copy )?used$"
    r"|second (try|attempt) (ok|fine|passed|worked)"
    r"|re-?(sent|read|tried|transmitted|submitted|connected|opened|played|queued|run|delivered)"
    r"( it)? (ok|okay|fine|well|successfully)"
    r"|dropped it|left (it )?as (it )?is|tolerated|accepted anyway|kept going|went on)\b"
)
#: the last clause of a line that tells what is done about it: `permission denied, estimating`
_DOING = (
    r"[,;] (now |then |just |so )?(estimat|round|guess|approximat|sampl|trimm|truncat|padd|stripp"
    r"|replac|remov|dropp|delet|discard|pick|append|merg|fill|leav|apply|convert|cast|coerc|backing off|keep"
    r"|hold|postpon|deferr|delay|throttl|slow|reduc|lower|rais|extend|grow|renew|recover|repair|fix|normaliz"
    r"|dedup\w*|escap|mask|poll|purg|clear|evict|compact|redirect|rerout|relax|shrink"
    r"|lett|pass|tak|try|go|do|mak|stay)ing"
    r"( [\w'-]+){0,4}\W*$"
)

#: a property of an object that Node.js shows with an error: none of the error's own words
_SHOWN_OBJECT = (
    r"^\s+(\[Symbol\([^)]+\)\]: [^\n]*"
    r"|('[^']+'|[\w$]+): (undefined|\[(Function|Circular|class|Getter)\b[^\n]*"
    r"|\[?(Object|Array|Symbol)\b[^\n]*|(\w+ )?[\[{]+),?)$"
)

_TRAITS = {
    Mark.ERRORISH: (
        r"(?i)\b(error|exception|fail(ed|ure|s)?|fatal|denied|refused|timed? ?out|unable|cannot"
        r"|can't|could not"
        r"|not found|no such|invalid|killed|exceed\w*|missing|unavailable|abort\w*|reject\w*|forbidden|panic"
        r"|expired|unauthori[sz]ed|violat\w*|mismatch\w*|terminated|evicted|lost|does not|doesn't"
        r"|no space left|too many open|out of memory|exhausted|SIG(TERM|KILL|HUP|INT)|drain(ing|ed)"
        r"|preempted|terminating|maintenance|cordoned"
        r"|un(bound|defined)|must (have|not)|oom[_ -]?kills?[ =:]+[1-9]\d*"
        r"|not (defined|provided|set|available|supported|allowed|authori[sz]ed|valid|ready|running|writable"
        r"|readable)|is required"
        r"|panicked|out of (bounds|range)|unexpected|too (many|long|large|small|few|old|new)|illegal"
        r"|malformed"
        r"|corrupt\w*|incompatible|conflict\w*|unknown|unrecogni[sz]ed|unsupported|insufficient|overload\w*"
        r"|undefined|wrong|incorrect|bad|blocked|broken"
        r"|stale|no longer|not enough|no space|low on|gave up|giving up"
        r"|fehler\w*|fehlgeschlagen|nicht|kein\w*|ung[uü]ltig\w*|verweigert|abgelehnt|unbekannt\w*"
        r"|abgebrochen"
        r"|erreur|[eé]chec|introuvable|refus[eé]\w*|aucune?|impossible|invalide|interdit|inconnue?"
        r"|manquant\w*"
        r"|no existe|no se (puede|pudo|encontr[oó]\w*)|fall[oó]|denegado|inv[aá]lid[oa]|desconocid[oa]|falta"
        r"|erro|falhou|negad[oa]|n[aã]o (foi|existe|encontrad[oa]|pode)|errore|impossibile|negato"
        r"|inesistente|non valido"
        r")\b"
        r"|\b[45]\d\d(\s*$|[^\w\s]|\s+(?-i:[A-Z][a-z]|[\x{2013}\x{2014}(\[{\"'-])"
        r"|\s+(client|server|error|for|from|on|in|at|after|again|response|too|bad|not|un\w+|forbidden|conflict|gone"
        r"|service|gateway|internal|status|returned|received|throttl\w+|slow|retry\w*)\b)"
        r"|(->|=>|\bhttp\S*|\bstatus\S*|\bcode\S*|\banswer\w*|\bgot|\breturn\w*)\s*[45]\d\d\b"
        r"|(?-i:Error\b|Exception\b|_(" + _CODE_ENDS + r")\b|(?:^| )E: [A-Z])"
    ),
    Mark.RETRYING: (
        r"(?i)\bretry(ing)?\b|will retry|\battempt \d+|try \d+ of|backing off|backoff|reconnect|trying again"
        r""
        r""
        r"|(waiting|sleeping|pausing)( for)? \d|throttling (ourselves|client)"
        r"|\bheld by\b|, wait(ing|ed)\b|\bbusy\b|falling back|fallback|ignor(ed|ing)|skipp(ed|ing)"
        r"|non-?fatal|continuing|using default|transient"
    ),
    Mark.SUCCESS: (
        r"(?i)\b(succeeded|success(ful|fully)?|recovered|reconnected|re-?established|connected|resumed"
        r"|completed|healthy again|back online|acquired|restored)\b|\bHTTP/\d\.\d\"? 2\d\d|\bok$"
    ),
    Mark.NOT_SUCCESS: (
        r"(?i)\b(not|un|dis|never|without|0)[ -]?(success|connect|complet|recover|acquir)"
        r"|success\w* (stopp|clos|shut|delet|remov|terminat|disconnect|logged out|clean|unmount"
        r"|releas|abort|cancel)"
    ),
    Mark.END: (
        r"Task failed with exception|Marking task as (FAILED|UP_FOR_RETRY)"
        r"|Command exited with return code [1-9-]|returned a non-zero exit code"
        r"|Failed to execute (job|task)|Task exited|Process (terminated|exited)"
        r"|Task killed|Server indicated the task|Dag not found during start up|received SIGTERM"
        r"|State of this instance has been externally set"
    ),
    Mark.NOISE: (
        r"^(::(end)?group::|\S*/logs/dag_id=|DAG bundles loaded|Filling up the DagBag|Worker startup parse"
        r"|Done\. Returned|Tmp dir root location|Running command: |Pre Execute|Post Execute"
        r"|Exporting env vars|AIRFLOW_CTX_|Started process|Running <TaskInstance"
        r"|Dependencies all met|Starting attempt"
        r"|Executing <Task|-+$|\*\*\* |Log message source details|If you want to see|Retrieving connection"
        r"|Task instance is in running|\s*Previous state of the Task|Current task name|Dag name"
        r"|Rendering template|Using connection ID|Traceback \(most|Output:$"
        r"|SLF4J:|log4j:|debconf:|tput:|stty:|mesg:|npm (WARN|notice)|Warning: Permanently added"
        r"|Deleting pod|Pod \S+ has phase|Creating ssh_client|Starting remote job)"
        r"|"
        + _SHOWN_OBJECT
        + r"|NativeCodeLoader|StatusLogger|LD_PRELOAD cannot be preloaded|setlocale: |Setting locale failed"
    ),
    Mark.BLUNT: (
        r"(?i)\b(errors?|fatal|exception|panic|fail(ed|ure|s)?|aborted|killed|denied|refused|forbidden|cannot"
        r"|can't|could not|unable|caused by|no space left|too many open|out of memory|quota exceeded|violates"
        r"|unexpected (?:eof|end of file)|cannot allocate|segmentation fault)\b"
        r"|(?-i:[a-z](Error|Exception|Failure)\b|_(" + _CODE_ENDS + r")\b)"
    ),
    Mark.NONE_BAD: (
        r"(?i)\b(0|no|zero|without) |oom.?kill\w* 0\b|[:=]\s*(0|none|null|false|\[\]|\"\")([^\d.x]|$)"
    ),
    Mark.PASSED: (
        r"(?i)\b(anew|re-?build(ing)? (it|the)|building (it|one|a new)|creating (it|one|a new|new)"
        r"|will create"
        r"|(will be|being|is) (re-?)?created|from scratch|starting (full|fresh)"
        r"|fall(ing|s)? ?back|fallback|ignor(ed|ing)|skipp(ed|ing)"
        r"|non-?fatal|harmless|optional|refreshed|quarantined?"
        r"|(metrics|cache|plugin|tracing|telemetry) disabled|discarding|filled with"
        r"|continuing|carrying on|proceeding|moving on|not (critical|blocking|needed)"
        r"|(using|assuming|applying) (the )?(default|cached|previous|last)|defaulting to"
        r"|defaults? (value )?(is |are |was )?(being )?used|\w*deprecat\w+"
        r"|rejoin\w*|recovered|self-?healed|best effort|(second|next|later) (call|try|attempt) (ok|worked))\b"
        r"|(?i)\b(timeouts?|limits?|deadline|retries|attempts) (is |was |are )?(set to|configured)"
        r"|(?i)(usage|used|at|is)[: ]+[1-8]?\d(\.\d+)? ?%|\b[1-8]?\d(\.\d+)? ?% (of|used|full)"
    ),
    Mark.RECOVERS: r"(?i)\((\w+ ){0,3}(disabled|off|skipped|ignored|optional|not needed|unused)\)"
    r"|\b(switched|turned) off\b|\bfor this run\b"
    r"|\b(previous|last|earlier|prior|yesterday'?s?|last night'?s?) (run|night|execution|load|time)\b"
    r"|\b(previous|earlier|prior) (attempt|try) (was|were|had|failed|ended|died|got)\b|\byesterday'?s\b"
    r"|" + _DOING + r"|" + _DONE_ABOUT_IT + r""
    r"|[,;] (but )?[^,;\n]{0,40}\b(taken|kept|served|answers|used instead|fine|going without"
    r"|not needed|inferred"
    r"|resumed|repeated|then served|keep=\w+)\b"
    r"|(, |; | --? |[\x{2013}\x{2014}] |\(|\. |: |\band |, so )"
    r"(will |now |then |we are |we )?(" + _INSTEAD + r")\b|[,;] (now |then )?using [^\n]{1,50}",
    Mark.GIVES_UP: (
        r"(?i)\b(exiting|abort(ing|ed)|giv(ing|es?|en) up|gave up|quitting|bailing out|terminating"
        r"|no (more )?retr"
        r"|(fallback|retry|retries|restart|reconnect\w*) (also |too )?(failed|exhausted|exceeded)|failed too"
        r"|(attempt|try|retry) #?(1(/| of )1|2(/| of )2|3(/| of )3|4(/| of )4|5(/| of )5|6(/| of )6"
        r"|8(/| of )8|10(/| of )10)"
        r"|last (attempt|try|retry)|final (attempt|try|retry)"
        r"|(after|exhausted) (all |\d+ )?(retries|attempts)|fatal:|total=0,"
        r"|not (retrying|continuing|ignoring))"
    ),
    Mark.CLOSING: (
        r"(?i)^\W*(\w+\W+){0,3}?(roll(ing|ed) back|rollback|clos(ing|ed)|clean(ing)?[ -]?up|cleaned"
        r"|shutting down"
        r"|shutdown|releas(ing|ed)|disconnect(ing|ed)|stopp(ing|ed)|exiting|bye|leaving|kept|keeping|elapsed"
        r"|finished (in|after)|took \d|invoking stop|temp(orary)? (files?|dir\w*|tables?) (kept"
        r"|removed|deleted|dropped))\b"
        r"|(?i)\b(shutdown hook|shutting down|asking each|stopped[.!]?$|deleting directory"
        r"|memory ?store cleared)"
    ),
    Mark.ASIDE: (
        r"(?i)\b(clean(ing|ed)?[ -]?up|notif(y|ying|ied|ication|ier)"
        r"|opentelemetry|sentry|analytics (events?|pings?|tracking)|heartbeat push|pushgateway|lineage"
        r"|on_\w+_callback"
        r"|(success|failure|retry|done) callback"
        r"|(send|sending|sent|post|posting|deliver) (the |an? )?(mail|e-?mail|alert|notice"
        r"|message to slack|slack"
        r"|report mail|status)|(remove|delete|unlink|clean) (the )?(temp\w*|tmp|scratch|work ?dir|lock ?file)"
        r"|releas(e|ing) (the )?lock|rm: cannot remove|rmdir: "
        r"|while (clos|releas|dispos|remov|delet|tear|shutt|disconnect|roll)ing"
        r"|(on|at|during) (close|exit|shutdown|tear-?down|clean-?up|dispose)|tear-?down|atexit"
        r"|rollback (also )?(failed|error)"
        r"|(could not|cannot|can't|failed to|unable to|error) (close|closing|release|releasing|roll ?back"
        r"|rolling back|flush logs?|disconnect)"
        r"|(could not|cannot|can't|failed to|unable to) (remove|delete|unlink|clean)"
        r" [^\n]{0,40}?\b(tmp|temp\w*|stag(e|ing)|scratch|spill|lock|pid))\b"
        # The word itself, and no name that begins with it: `telemetry-bridge`.
        r"|(?i)\b(telemetry|metrics?|tracing|statsd|otel)([^-\w]|-?$)"
    ),
    Mark.FINE: (
        r"(?i)(?:^|[^`'\w])(ok|okay|done|2[0-46-9]\d|25[0-46-9]|ready"
        r"|written|loaded|granted|fetched|passed|completed?"
        r"|success\w*|resumed"
        r"|succeeded|healthy|alive|recovered|reconnected|connected|available again|rows|records"
        r"|refreshed|rebuilt|reloaded|recreated|acquired|obtained|taken|renewed|reopened|regenerated|released"
        r"|answered|received)(?:[^`'\w]|$)"
    ),
    # Ruby, Node, Rust, Go, Perl, Java, .NET, PHP, Lua, R, Elixir; the object that Node prints after it.
    Mark.STACK: (
        r"^\s*(\[[\w-]+\] )?\s*(from \S+:\d+:in |at [\w$<\[]\S*[.:(]\S*( .*)?[)\d]( \{)?$"
        r"|\d+: +[\w<{:]+::|\d+: +0x|#\d+ +\S|goroutine \d+ \[|created by \S+|\.\.\. \d+ more"
        r"|stack (trace|backtrace|traceback):?$"
        r"|(note|help): (run with|Some details|this error originates)|Node\.js v\d|node:internal/|[{}\]]$"
        r"|(errno|code|syscall|path|address|port|fatal): (-?\d+|'[^']*'|true|false),?$|\^+$"
        r"|while executing$|invoked from within$|\((procedure|file) \"[^\"]+\" line \d+\)$"
        r"|\[C\]: in |Calls: |Execution halted$|\t?/\S+\.(go|rs):\d+ \+0x)"
        r"|" + _SHOWN_OBJECT
    ),
}


class Glance:
    """Finds the marks of lines, each text once."""

    def __init__(self) -> None:
        self._set = re2.Set.SearchSet()
        for mark in Mark:
            self._set.Add(_TRAITS[mark])
        self._set.Compile()

    def at(self, text: str) -> frozenset[int]:
        """The marks of one text."""
        return frozenset(self._set.Match(text[:GLANCE].encode("utf-8", "replace")) or ())
