-- Leases; a group's worker in JSON, and how far from now the new deadline is.

local body, say = answers(1)
local leases_of = {}
each_lease(2, 0, say, function(task, shared)
  local lease = leases_of[shared]
  if not lease then
    lease = lease_of(task.state.worker, ARGV[shared], now + tonumber(ARGV[shared + 1]))
    leases_of[shared] = lease
  end
  hold(task, home(task), lease, 0)
  say('+', lease.score)
end)
return answer(body)
