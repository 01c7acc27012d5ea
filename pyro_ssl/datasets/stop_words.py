"""Function words of English: what a list of a topic's words may leave out."""

__all__ = ["STOP_WORDS"]

#: articles, pronouns, prepositions, conjunctions, auxiliaries and the commonest adverbs
STOP_WORDS: frozenset[str] = frozenset(
    """
    a an the this that these those
    i me my mine myself we us our ours ourselves you your yours yourself yourselves
    he him his himself she her hers herself it its itself they them their theirs themselves
    one ones who whom whose which what someone anyone everyone something anything everything
    nothing each every either neither both all any some none such same other others another own
    and or but nor so yet if unless while whereas because since although though than as whether
    of in on at by for with from to into onto upon about against between among through during
    before after above below over under within without across along around behind beyond near off
    out up down per via
    am is are was were be been being do does did doing done have has had having
    will would shall should can could may might must ought let
    not no never n't isn't aren't wasn't weren't don't doesn't didn't haven't hasn't hadn't won't
    wouldn't shan't shouldn't can't cannot couldn't mustn't
    i'm i've i'll i'd you're you've you'll you'd he's he'll he'd she's she'll she'd it's we're
    we've we'll we'd they're they've they'll they'd that's there's here's what's who's let's
    there here where when why how then now also only just even still again once twice too very
    quite rather really much many more most few fewer less least else ever
    s t d m ll re ve br
    """.split()
)
