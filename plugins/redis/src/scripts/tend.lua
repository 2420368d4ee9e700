-- What to look after (`due`, `expiring`; empty for neither), how many tasks to move at most, and until when
-- things have to have been due; 0 for now. Answers what was moved, and when the next task of that kind is due;
-- then when the next task comes due and when the next lease ends (empty for never), whether there are
-- claimable tasks, and whether there are records that cannot be read.

local kind, limit, til = ARGV[FIRST], tonumber(ARGV[FIRST + 1]), tonumber(ARGV[FIRST + 2])
if til == 0 or til > now then til = now end

local moved = 0
if limit > 0 and kind == 'due' then moved = come_due(QUEUE, limit, til) end
if limit > 0 and kind == 'expiring' then moved = expire(QUEUE, limit, til) end

local due, deadline = next_due(QUEUE), next_deadline(QUEUE)
local next = kind == 'due' and due or kind == 'expiring' and deadline or nil
local body = {}
report(body, moved, next)
local n = #body
body[n + 1], body[n + 2] = due and whole(due) or '', deadline and whole(deadline) or ''
body[n + 3] = is_empty(QUEUE) and '0' or '1'
body[n + 4] = call('HLEN', CORRUPT) > 0 and '1' or '0'
return answer(body)
