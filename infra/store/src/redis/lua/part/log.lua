-- Adds to the log of a message, if it has one. Gives its new length when it should be written anew, else 0.
local function log(tally, records)
  local head = call('GETRANGE', tally, 0, 3)
  if #head < 4 then return 0 end
  local length = call('APPEND', tally, records)
  if length > struct.unpack('>I4', head) then return length end
  return 0
end

