-- Repair in a cluster, where hosts know which queues need one.

local function adopt() end
local function repair_tenant() return 0 end

-- When something is to be done in this queue, after all that the script did.
local function next_alarm()
  -- What may fail comes before what is written.
  local due = next_due(QUEUE)
  flush()
  local deadline = next_deadline(QUEUE)
  return (due and deadline) and min(due, deadline) or due or deadline
end

-- Whoever wants any task asks several queues at once, each for its share.
local function next_in_turn(_, missing)
  if not QUEUE.drained then return QUEUE, missing end
end

local function end_turn() end
