-- For each item: id.

local body, say = answers(1)
for n = FIRST, #ARGV do
  local id = ARGV[n]
  local task, unreadable = load(id)
  if task then
    forget(task, home(task))
    say('+')
  elseif unreadable then
    -- Where it was found is the only place it can still be in.
    local base = (call('HGET', CORRUPT, id) or ''):match('^%x+ (.*)$')
    forget({ id = id, state = { status = '' } }, base and queue_at(base) or queue_of('', ''))
    say('+')
  else
    say('NOT_FOUND')
  end
end
return answer(body)
