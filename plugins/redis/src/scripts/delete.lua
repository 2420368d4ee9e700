-- For each item: id.

local body = {}
for n = FIRST, #ARGV do
  local id = ARGV[n]
  local task, unreadable = load(id)
  if task then
    forget(task, home(task))
    done(body)
  elseif unreadable then
    -- Where it was found is the only place it can still be in.
    local base = (call('HGET', CORRUPT, id) or ''):match('^%x+ (.*)$')
    forget({ id = id, status = '', tenant = '' }, base and queue_at(base) or queue_of('', ''))
    done(body)
  else
    say(body, 'NOT_FOUND')
  end
end
return answer(body)
